"""The page docs/add_a_method.md is true: its code runs, trains, and is the formula that it says."""
import math
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import mmcrrcd
import torch
from mmcrrcd.registry import LOSSES, MODELS

PAGE = (Path(__file__).parents[1] / 'docs' / 'add_a_method.md').read_text(encoding='utf-8')


def slow(student, teacher, temperature):
    def probabilities(logits):
        mean = sum(logits) / len(logits)
        deviation = math.sqrt(sum((z - mean)**2 for z in logits) / (len(logits) - 1)) + 1e-7
        powers = [math.exp((z - mean) / deviation / temperature) for z in logits]
        return [p / sum(powers) for p in powers]

    total = 0
    for s, t in zip(student.tolist(), teacher.tolist()):
        total += sum(p * math.log(p / q) for p, q in zip(probabilities(t), probabilities(s)))
    return temperature**2 * total / len(student)


def test_the_pages_method_is_part_of_the_package_with_its_names(tmp_path):
    package = tmp_path / 'mmcrrcd'
    shutil.copytree(Path(mmcrrcd.__file__).parent, package, ignore=shutil.ignore_patterns('.mim', '__pycache__'))
    losses = package / 'models' / 'losses'
    source, names, _ = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
    (losses / 'standardized_kd.py').write_text(source)
    with (losses / '__init__.py').open('a') as file:
        file.write(names)
    command = 'from mmcrrcd.models import StandardizedKDLoss, standardized_kd_loss; print(StandardizedKDLoss.__module__)'
    said = subprocess.run([sys.executable, '-c', command], cwd=tmp_path, env=os.environ | dict(PYTHONPATH=str(tmp_path)),
                          capture_output=True, text=True)
    assert said.stdout == 'mmcrrcd.models.losses.standardized_kd\n', said.stderr


def test_the_pages_method_trains_and_is_its_formula():
    source, _, config = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
    assert len(source.splitlines()) < 40
    assert LOSSES.get('StandardizedKDLoss') is None, 'now that it is part of the package, the page needs another example'
    module = types.ModuleType('standardized_kd')
    sys.modules['standardized_kd'] = module                # register_module looks for the module of a class
    exec(source, module.__dict__)
    try:
        network = dict(type='mmpretrain.ImageClassifier', backbone=dict(type='mmcrrcd.ResNetCIFAR', depth=8),
                       neck=dict(type='mmpretrain.GlobalAveragePooling'),
                       head=dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=64))
        names = dict(teacher=network, student=network, data_preprocessor=dict(
            type='mmcrrcd.PairPreprocessor', mean=[127.0] * 3, std=[60.0] * 3, resolution=8))
        exec(config, names)
        torch.manual_seed(0)
        model = MODELS.build(names['model'])
        data = dict(inputs=torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), labels=torch.tensor([0, 1, 2, 0]),
                    index=torch.arange(4))
        parts = model(**model.data_preprocessor(data, training=True), mode='loss')
        parts['loss_standardized'].backward()
        assert parts['loss_standardized'] > 0 and model.student.backbone.stem[0].weight.grad.abs().sum() > 0
    finally:
        LOSSES.module_dict.pop('StandardizedKDLoss')
        del sys.modules['standardized_kd']

    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64)
    value = module.standardized_kd_loss(student, teacher, 2.0)
    torch.testing.assert_close(value.item(), slow(student, teacher, 2.0), rtol=0, atol=1e-12)
    other_range = module.standardized_kd_loss(10 * student + 3, teacher, 2.0)
    torch.testing.assert_close(other_range, value, rtol=1e-5, atol=0)
