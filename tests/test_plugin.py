"""A text config of somebody else's mmpretrain project names parts of this package, and imports nothing of it."""
import os
import subprocess
import sys

import pytest
from tiny import write_folder

CONFIG = """
default_scope = 'mmpretrain'
data_preprocessor = dict(
    type='mmcrrcd.PairPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


def network(width):
    return dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=8, base_channels=width),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=4, in_channels=8 * width,
                  loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1)))


model = dict(
    type='mmcrrcd.CRRCD', student=network(8), teacher=network(16), input_size=16, num_negatives=12, num_anchors=4,
    objective=dict(more_kd=dict(type='mmcrrcd.KDLoss', weight=[(0, 0.1), (1, 0.5)], temperature=2)))


def loader(split, transforms, shuffle):
    return dict(
        batch_size=8, num_workers=0,
        dataset=dict(
            type='CustomDataset', data_root='{root}/' + split,
            pipeline=[dict(type='LoadImageFromFile'), *transforms, dict(type='mmcrrcd.ResolutionPair', resolution=8),
                      dict(type='PackInputs', algorithm_keys=('img_low', ))]),
        sampler=dict(type='DefaultSampler', shuffle=shuffle))


train_dataloader = loader('train', [dict(type='RandomFlip', prob=0.5)], True)
val_dataloader = test_dataloader = loader('test', [], False)
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1, ))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9){amp})
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = test_cfg = dict()
custom_hooks = [dict(type='mmcrrcd.EpochSeedHook'), dict(type='mmcrrcd.PlainCheckpointHook')]
default_hooks = dict(checkpoint=dict(type='mmcrrcd.AtomicCheckpointHook', interval=1))
randomness = dict(seed=0)
work_dir = '{root}/run'
del network, loader
"""

SCRIPT = """
import sys
from mmengine.config import Config
from mmengine.runner import Runner
cfg = Config.fromfile(sys.argv[1])
assert not any(name.split('.')[0] == 'mmcrrcd' for name in sys.modules)
runner = Runner.from_cfg(cfg)
runner.train()
import torch
from mmcrrcd.models import CRRCD
assert type(runner.model) is CRRCD
checkpoint = torch.load(cfg.work_dir + '/epoch_1.pth', weights_only=True)
assert checkpoint['state_dict']['losses.rcd.queue.pushed'] == 24
print('accuracy', runner.message_hub.get_scalar('val/accuracy/top1').current())
"""


@pytest.mark.slow
@pytest.mark.parametrize('amp', ['', ", type='mmcrrcd.BF16OptimWrapper'"])
def test_text_config_trains_in_an_interpreter_that_never_imported_the_package(tmp_path, amp):
    write_folder(tmp_path / 'train', seed=0)
    write_folder(tmp_path / 'test', seed=1)
    (tmp_path / 'config.py').write_text(CONFIG.replace('{root}', str(tmp_path)).replace('{amp}', amp))
    result = subprocess.run([sys.executable, '-c', SCRIPT, str(tmp_path / 'config.py')], capture_output=True, text=True,
                            cwd=tmp_path, env=os.environ | dict(OMP_NUM_THREADS='1'))
    assert result.returncode == 0, result.stderr[-3000:]
    assert 0 <= float(result.stdout.split()[-1]) <= 100
    assert 'loss_rcd' in result.stdout + result.stderr and 'loss_more_kd' in result.stdout + result.stderr
