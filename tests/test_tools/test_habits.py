"""What users of OpenMMLab expect of tools/train.py and tools/test.py."""
import json

import pytest
from mmengine.config import Config
from tiny import config, network

from tools import test as test_tool
from tools import train


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str = 'plain.py', **changes) -> Config:
    model = dict(type='mmcrrcd.Distiller', student=network(),
                 data_preprocessor=dict(type='mmcrrcd.PairPreprocessor', mean=[120.] * 3, std=[60.] * 3))
    cfg = config('unused', model, epochs=1)
    cfg.pop('work_dir')
    cfg = Config(cfg.to_dict() | changes)
    cfg.dump(name)
    return cfg


def dumped(folder) -> Config:
    file, = folder.glob('*.py')
    return Config.fromfile(file)


@pytest.mark.parametrize('in_config, on_command_line, goes_to', [
    (None, None, 'work_dirs/plain'), ('runs/one', None, 'runs/one'), ('runs/one', 'runs/two', 'runs/two')])
def test_the_folder_is_that_of_the_command_line_then_of_the_config_then_of_its_name(here, in_config, on_command_line, goes_to):
    write(**(dict(work_dir=in_config) if in_config else {}))
    train.main(['plain.py', *(['--work-dir', on_command_line] if on_command_line else [])])
    assert (here / goes_to / 'last_checkpoint').exists()


def test_the_learning_rate_is_scaled_where_that_is_asked_for(here, capsys):
    write(auto_scale_lr=dict(base_batch_size=16))
    train.main(['plain.py', '--auto-scale-lr'])
    assert dumped(here / 'work_dirs' / 'plain').auto_scale_lr == dict(base_batch_size=16, enable=True)
    log, = (here / 'work_dirs' / 'plain').glob('*/vis_data/scalars.json')
    rates = [json.loads(line)['lr'] for line in log.read_text().splitlines() if 'lr' in json.loads(line)]
    assert rates[0] == pytest.approx(0.05 * 8 / 16)


def test_a_rate_of_unknown_batch_is_not_scaled(here):
    write()
    with pytest.raises(SystemExit, match='base_batch_size'):
        train.main(['plain.py', '--auto-scale-lr'])


def test_loaders_without_pinned_memory_and_persistent_workers(here):
    cfg = write()
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].update(pin_memory=True, num_workers=1, persistent_workers=True)
    cfg.dump('plain.py')
    train.main(['plain.py', '--no-pin-memory', '--no-persistent-workers'])
    left = dumped(here / 'work_dirs' / 'plain')
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert left[loader].pin_memory is left[loader].persistent_workers is False


def test_a_test_does_not_replace_the_config_of_a_training(here):
    write()
    train.main(['plain.py'])
    test_tool.main(['plain.py', 'work_dirs/plain'])
    with pytest.raises(SystemExit, match='folder of a training'):
        test_tool.main(['plain.py', 'work_dirs/plain', '--work-dir', 'work_dirs/plain'])
