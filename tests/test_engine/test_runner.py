"""What the Runner adds to mmengine's."""
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from tiny import CLASSES, IMAGES, config, crrcd, pipeline_loader, train, write_folder, write_teacher

from mmcrrcd.engine.runner import WAIT, Runner


@pytest.fixture
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def test_the_config_is_formatted_once_and_stands_in_each_checkpoint(tmp_path, monkeypatch):
    calls, formatted = [], Config.pretty_text.fget
    cfg = config(tmp_path / 'run', crrcd(write_teacher(tmp_path / 'teacher.pth')), epochs=3)
    cfg.default_hooks.checkpoint.max_keep_ckpts = 3
    monkeypatch.setattr(Config, 'pretty_text', property(lambda self: calls.append(1) or formatted(self)))

    class Begin(Hook):
        def before_train(self, runner):
            calls.clear()

    runner = train(cfg, Begin())
    assert len(calls) <= 1
    texts = {torch.load(tmp_path / 'run' / f'epoch_{epoch}.pth', weights_only=False)['meta']['cfg'] for epoch in (1, 2, 3)}
    assert texts == {formatted(runner.cfg)}


def test_loaders_do_not_wait_for_ever(tmp_path, scope):
    folder = write_folder(tmp_path, seed=0)
    assert Runner.build_dataloader(pipeline_loader(folder, training=False)).timeout == 0
    with_workers = pipeline_loader(folder, training=False, workers=1)
    assert Runner.build_dataloader(with_workers).timeout == WAIT
    assert Runner.build_dataloader(with_workers | dict(timeout=7)).timeout == 7


def test_hidden_folders_are_no_classes(tmp_path, scope):
    folder = write_folder(tmp_path, seed=0)
    (folder / '.ipynb_checkpoints').mkdir()
    (folder / '.ipynb_checkpoints' / 'a.png').write_bytes(b'x')
    dataset = Runner.build_dataloader(pipeline_loader(folder, training=False)).dataset
    assert dataset.metainfo['classes'] == tuple(f'class{i}' for i in range(CLASSES)) and len(dataset) == IMAGES
