"""What is in a checkpoint, and what comes out of it."""
import pickle

import pytest
import torch
from tiny import STUDENT, TEACHER, config, crrcd, network, train, write_teacher

from mmcrrcd.checkpoint import find_checkpoint, load_network, read_network, safe_load
from mmcrrcd.errors import InputError
from mmcrrcd.registry import MODELS


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    train(config(folder / 'run', crrcd(write_teacher(folder / 'teacher.pth')), epochs=2))
    return folder / 'run'


def student(seed: int = 0):
    torch.manual_seed(seed)
    return MODELS.build(STUDENT)


def test_plain_torch_loads_every_file(work_dir):
    files = list(work_dir.glob('*.pth'))
    assert len(files) == 2
    for file in files:
        assert torch.load(file, weights_only=True)['meta']['epoch'] in (1, 2)


def test_checkpoint_holds_student_and_losses_but_no_teacher(work_dir):
    checkpoint = safe_load(find_checkpoint(work_dir))
    assert {key.split('.')[0] for key in checkpoint['state_dict']} == {'student', 'losses'}
    numbers = sum(value.numel() for key, value in checkpoint['state_dict'].items() if key.startswith('student.'))
    assert numbers == sum(value.numel() for value in student().state_dict().values())
    assert {'embedding', 'key', 'pushed'} == {key.removeprefix('losses.rcd.queue.') for key in checkpoint['state_dict']
                                              if 'queue' in key}
    # Momentum of the trained parameters only: the student's and the losses'.
    trained = sum('running' not in key and 'queue' not in key and 'tracked' not in key and 'log_mean' not in key
                  for key in checkpoint['state_dict'])
    assert len(checkpoint['optimizer']['state']) == trained


def test_the_student_is_read_from_a_distiller_a_classifier_and_a_wrapped_one(work_dir, tmp_path):
    weights = read_network(work_dir)
    for name, keys in (('plain', '{}'), ('wrapped', 'module.{}'), ('distiller', 'student.{}')):
        torch.save(dict(state_dict={keys.format(key): value for key, value in weights.items()}), tmp_path / name)
        network = student()
        load_network(network, tmp_path / name, 'student')
        for key, value in network.state_dict().items():
            assert torch.equal(value, weights[key])


def test_mmengines_own_checkpoints_with_its_log_are_read(tmp_path):
    cfg = config(tmp_path / 'mmpretrain', dict(type='mmcrrcd.Distiller', student=STUDENT,
                                          data_preprocessor=crrcd(tmp_path)['data_preprocessor']), epochs=1,
                 default_hooks={}, custom_hooks=[])
    runner = train(cfg)
    file = find_checkpoint(tmp_path / 'mmpretrain')           # holds HistoryBuffers
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)
    assert torch.equal(read_network(file)['head.fc.weight'], runner.model.student.head.fc.weight)


@pytest.mark.parametrize('other, message', [
    (TEACHER, r'no backbone\.stages\.0\.0\.downsample\.0\.weight; .* and \d+ more'),
    (dict(STUDENT, backbone=dict(type='mmcrrcd.ResNetCIFAR', depth=14, widths=(8, 8, 16, 16))), r'no backbone\.stages'),
    (dict(network(), head=dict(type='mmpretrain.LinearClsHead', num_classes=7, in_channels=16)),
     r'head\.fc\.weight is \(4, 16\), not \(7, 16\)'),
])
def test_another_architecture_is_named_in_one_line_and_left_as_it_was(work_dir, other, message):
    network = MODELS.build(other)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(InputError, match=message) as error:
        load_network(network, work_dir, 'student')
    assert '\n' not in str(error.value) and 'is not a checkpoint of this student' in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class Code:
    def __reduce__(self):
        return print, ('code from a checkpoint has run', )


class Lookup:
    """``getattr`` of something that is not the log's: the first step of an attack."""

    def __reduce__(self):
        return getattr, (torch.Tensor, '__class__')


@pytest.mark.parametrize('attack', [Code, Lookup])
def test_code_in_a_checkpoint_does_not_run(tmp_path, capsys, attack):
    torch.save(dict(state_dict={}, code=attack()), tmp_path / 'bad.pth')
    with pytest.raises(InputError, match='is not a checkpoint that can be loaded safely'):
        read_network(tmp_path / 'bad.pth')
    assert 'has run' not in capsys.readouterr().out


@pytest.mark.parametrize('content', [b'', b'half a file', None])
def test_a_broken_file_is_one_clear_line(work_dir, tmp_path, content):
    whole = find_checkpoint(work_dir).read_bytes()
    (tmp_path / 'broken.pth').write_bytes(whole[:len(whole) // 2] if content is None else content)
    with pytest.raises(InputError, match='broken.pth is not a checkpoint') as error:
        read_network(tmp_path / 'broken.pth')
    assert '\n' not in str(error.value)


def test_a_file_without_weights_is_one_clear_line(tmp_path):
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(InputError, match='list.pth is not a checkpoint: it holds a list'):
        read_network(tmp_path / 'list.pth')


def test_a_moved_work_directory_still_knows_its_last_checkpoint(work_dir, tmp_path):
    moved = tmp_path / 'moved'
    moved.mkdir()
    (moved / 'epoch_2.pth').write_bytes((work_dir / 'epoch_2.pth').read_bytes())
    (moved / 'last_checkpoint').write_text('/nowhere/epoch_2.pth')
    assert find_checkpoint(moved) == moved / 'epoch_2.pth'
    for missing in (tmp_path / 'nothing', tmp_path):
        with pytest.raises(FileNotFoundError, match=str(missing)):
            find_checkpoint(missing)


def test_an_unfinished_training_is_no_teacher(work_dir, tmp_path):
    checkpoint = safe_load(find_checkpoint(work_dir))
    checkpoint['message_hub']['runtime_info'].update(max_epochs=9, max_iters=27)
    torch.save(checkpoint, tmp_path / 'epoch_2.pth')
    (tmp_path / 'last_checkpoint').write_text('epoch_2.pth')
    with pytest.raises(InputError, match='stopped after epoch 2 of 9'):
        read_network(tmp_path)
    assert read_network(tmp_path / 'epoch_2.pth')        # named itself, it is taken
