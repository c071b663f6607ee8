"""docs/add_a_method.md is true: its code runs from a file of the user's own, trains, and is the formula that it says."""
import importlib
import math
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmcrrcd.registry import LOSSES, MODELS
from mmcrrcd.models import DistillLoss

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / 'docs' / 'add_a_method.md').read_text(encoding='utf-8')
SOURCE, CONFIG, TEXT_CONFIG = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
NETWORKS = """
student = teacher = dict(type='mmpretrain.ImageClassifier', backbone=dict(type='mmcrrcd.ResNetCIFAR', depth=8),
                         neck=dict(type='mmpretrain.GlobalAveragePooling'),
                         head=dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=64))
data_preprocessor = dict(type='mmcrrcd.PairPreprocessor', mean=[127.0] * 3, std=[60.0] * 3, resolution=8)
"""


@pytest.fixture
def own_file(tmp_path, monkeypatch):
    """A folder on the path with the page's file, which is forgotten afterwards."""
    assert LOSSES.get('StandardizedKDLoss') is None, 'now that it is part of the package, the page needs another example'
    (tmp_path / 'standardized_kd.py').write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    LOSSES.module_dict.pop('StandardizedKDLoss', None)
    sys.modules.pop('standardized_kd', None)


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


def trains(model: dict) -> None:
    torch.manual_seed(0)
    model = MODELS.build(model)
    data = dict(inputs=torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), labels=torch.tensor([0, 1, 2, 0]),
                index=torch.arange(4))
    parts = model(**model.data_preprocessor(data, training=True), mode='loss')
    parts['loss_standardized'].backward()
    assert parts['loss_standardized'] > 0 and model.student.backbone.stem[0].weight.grad.abs().sum() > 0
    assert parts['standardized_range'] > 0 and set(model.losses) == {'standardized'}


def test_the_pages_config_trains_with_the_file(own_file):
    shutil.copytree(ROOT / 'configs', own_file / 'configs')
    config = own_file / 'configs' / 'demo' / 'standardized_kd.py'
    config.write_text(CONFIG)
    assert len(SOURCE.splitlines()) < 40 and len(CONFIG.splitlines()) < 25
    trains(Config.fromfile(config).model)


def test_a_text_config_imports_the_file(own_file):
    (own_file / 'config.py').write_text(NETWORKS + TEXT_CONFIG)
    trains(Config.fromfile(own_file / 'config.py').model)


def test_the_pages_method_is_its_formula(own_file):
    module = importlib.import_module('standardized_kd')
    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64)
    value = module.standardized_kd_loss(student, teacher, 2.0)
    torch.testing.assert_close(value.item(), slow(student, teacher, 2.0), rtol=0, atol=1e-12)
    other_range = module.standardized_kd_loss(10 * student + 3, teacher, 2.0)
    torch.testing.assert_close(other_range, value, rtol=1e-5, atol=0)


def test_the_page_names_all_that_a_loss_may_declare():
    page = PAGE.split('## What a loss may declare')[1]
    declared = {name for name in vars(DistillLoss) if not name.startswith('_')} | {'log_vars'}
    assert all(f'`{name}' in page for name in declared - {'forward', 'compile'})
