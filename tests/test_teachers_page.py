"""The page docs/teachers.md is true: its code builds models whose students learn, and its table is what is written in it."""
import ast
import re
from pathlib import Path

import torch
from mmengine.config import Config
from torchvision.transforms import functional as F

import tiny  # noqa: F401
from mmcrrcd.datasets import ReplayedViews
from mmcrrcd.models import CRRCD, EmbeddingNetwork
from mmcrrcd.registry import DATASETS, HOOKS, MODELS
from test_models.test_teachers.test_onnx_network import face, write_onnx

PAGE = (Path(__file__).parents[1] / 'docs' / 'teachers.md').read_text(encoding='utf-8')
STUDENT = dict(type='mmpretrain.ImageClassifier', backbone=dict(type='mmcrrcd.ResNetCIFAR', depth=8),
               neck=dict(type='mmpretrain.GlobalAveragePooling'),
               head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=64))
PREPROCESSOR = dict(type='mmcrrcd.PairPreprocessor', mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 56.0], resolution=16)
IMAGES = torch.randint(0, 256, (4, 3, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def check(model) -> None:
    """The relational loss alone moves the student."""
    model.init_weights()
    queue = model.losses.rcd.queue
    queue.push(torch.randn(512, queue.embedding.shape[1]), torch.full((512,), 4))
    parts = model(**model.data_preprocessor(dict(inputs=IMAGES, labels=torch.arange(4), index=torch.arange(4)), training=True),
                  mode='loss')
    parts['loss_rcd'].backward()
    assert parts['loss_rcd'] > 0 and model.student.backbone.stem[0].weight.grad.abs().sum() > 0


def test_the_pages_teachers_teach(tmp_path, monkeypatch):
    module, by_name, onnx_file, cache = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
    names = dict(network=face(), student=STUDENT, data_preprocessor=PREPROCESSOR)
    exec(module, names)
    check(names['model'])

    exec(by_name, names)
    check(CRRCD(STUDENT, names['teacher'], data_preprocessor=PREPROCESSOR, input_size=112))

    write_onnx(face(), tmp_path / 'face.onnx', images=('n', 3, 112, 112))
    monkeypatch.chdir(tmp_path)
    exec(onnx_file, names)
    check(MODELS.build(names['model']))

    names['train_dataloader'] = Config(dict(dataset=dict(type='mmcrrcd.TinyImages', seed=0)))
    exec(cache, names)
    data = DATASETS.build(names['train_dataloader'].dataset)
    assert isinstance(data, ReplayedViews) and data.views == 16 and 'folder' in names['model']['teacher_cache']
    assert all(HOOKS.get(hook['type']) for hook in names['custom_hooks'])


def test_the_pages_numbers_are_those_of_the_usual_transforms():
    """Each line of the table, against torchvision's functions on 0 to 1, or the arithmetic that it names."""
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in PAGE.splitlines()
            if line.endswith(('| True |', '| False |'))]
    unit = IMAGES / 255
    expected = [F.normalize(unit, [0.5] * 3, [0.5] * 3), (IMAGES.flip(1).float() - 127.5) / 128,
                F.normalize(unit, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    for (_, mean, std, bgr), images in zip(rows, expected, strict=True):
        teacher = EmbeddingNetwork(face(), *map(ast.literal_eval, (mean, std, bgr)))
        preprocessor = MODELS.build(PREPROCESSOR)
        teacher.convert_from(preprocessor)
        teacher.extract(preprocessor.normalize(IMAGES))
        torch.testing.assert_close(teacher.network.seen, images, rtol=0, atol=1e-5)
