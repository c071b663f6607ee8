"""The page docs/add_a_method.md is true: its code runs, trains, and is the formula that it says."""
import re
import sys
import types
from pathlib import Path

import numpy as np
import torch
from mmcrrcd.registry import LOSSES, MODELS
from utils import shared_file

PAGE = (Path(__file__).parents[1] / 'docs' / 'add_a_method.md').read_text(encoding='utf-8')


def test_the_pages_method_trains_and_equals_published_values():
    source, config = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
    assert len(source.splitlines()) < 40
    assert LOSSES.get('SPLoss') is None, 'now that it is part of the package, the page needs another example'
    module = types.ModuleType('sp')
    sys.modules['sp'] = module                             # register_module looks for the module of a class
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
        parts['loss_sp'].backward()
        assert parts['loss_sp'] > 0 and model.student.backbone.stem[0].weight.grad.abs().sum() > 0
    finally:
        LOSSES.module_dict.pop('SPLoss')
        del sys.modules['sp']

    published = np.load(shared_file('golden', 'peers.npz'))
    maps = [[torch.from_numpy(published[f'map_{kind}{i}']) for kind in 'st'] for i in range(3)]
    ours = [module.sp_loss(*pair) for pair in maps]
    np.testing.assert_allclose(ours, published['out_sp_per_stage'].ravel(), rtol=0, atol=1e-9)
