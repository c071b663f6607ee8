"""What the Runner adds to mmengine's."""
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from tiny import config, crrcd, train, write_teacher


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
