"""What is in a checkpoint, and what comes out of it."""
import os
import pickle
import shutil

import pytest
import torch
from mmengine.model import PretrainedInit
from tiny import STUDENT, TEACHER, config, crrcd, network, train, write_teacher

from mmcrrcd.checkpoint import class_names_in, find_checkpoint, load_network, read_checkpoint, read_network
from mmcrrcd.engine.hooks.check_input import student_from
from mmcrrcd.engine.runner import fill
from mmcrrcd.errors import InputError
from mmcrrcd.models import Distiller
from mmcrrcd.registry import MODELS
from mmcrrcd.safetensors_file import to_safetensors
from mmcrrcd.torch_file import safe_load


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


def test_safetensors_over_one_another_are_refused(tmp_path):
    content = to_safetensors(dict(a=torch.zeros(4), b=torch.zeros(4)))
    (tmp_path / 'a.safetensors').write_bytes(content.replace(b'[4], "data_offsets": [0, 16]', b'[8], "data_offsets": [0, 32]'))
    with pytest.raises(InputError, match='damaged'):
        safe_load(tmp_path / 'a.safetensors')


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9])
def test_a_flipped_bit_is_found_by_the_checksums(work_dir, tmp_path, share):
    content = bytearray(find_checkpoint(work_dir).read_bytes())
    content[int(share * len(content))] ^= 1
    (tmp_path / 'bad.pth').write_bytes(content)
    with pytest.raises(InputError, match='bad.pth is not a checkpoint .*: it is damaged'):
        read_network(tmp_path / 'bad.pth')


@pytest.mark.parametrize('address', ['https://host/a.pth', 'http://host/a.pth', 'torchvision://resnet18', 's3://a/b.pth',
                                     'open-mmlab://resnet50', 'petrel:s3://a/b.pth', 'file:///a.pth'])
def test_an_address_is_never_fetched(address, monkeypatch):
    monkeypatch.setattr('socket.socket.connect', lambda *_: pytest.fail('it was fetched'))
    for read in (safe_load, read_checkpoint):
        with pytest.raises(InputError, match='is an address: download the file, and give its path'):
            read(address)


def test_a_pipe_in_place_of_a_checkpoint_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe.pth')
    with pytest.raises(InputError, match='no regular file'):
        safe_load(tmp_path / 'pipe.pth')


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_refused_but_not_buffers_that_start_so(tmp_path, value):
    network = student()
    network.register_buffer('empty', torch.tensor(float('nan')))
    weights = network.state_dict()
    torch.save(weights, tmp_path / 'good.pth')
    load_network(network, tmp_path / 'good.pth', 'student')
    for key in ('backbone.stem.0.weight', 'backbone.stem.1.running_var'):
        bad = {name: each.clone() for name, each in weights.items()}
        bad[key].view(-1)[0] = value
        torch.save(bad, tmp_path / 'bad.pth')
        with pytest.raises(InputError, match=f'bad.pth is of no use: {key} in it is not finite'):
            load_network(network, tmp_path / 'bad.pth', 'student')


@pytest.fixture
def folder(work_dir, tmp_path):
    """A work directory with three checkpoints, the last of which the pointer names."""
    whole = find_checkpoint(work_dir).read_bytes()
    for epoch in (2, 10, 9):
        (tmp_path / f'epoch_{epoch}.pth').write_bytes(whole)
        os.utime(tmp_path / f'epoch_{epoch}.pth', (epoch, epoch))
    (tmp_path / 'best_accuracy_top1_epoch_11.pth').write_bytes(whole)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_10.pth'))
    return tmp_path


@pytest.mark.parametrize('text', [None, '', '  ', '/nowhere/epoch_10.pth', '/nowhere/epoch_99.pth', '\0', 'x' * 5000,
                                  'https://host/epoch_77.pth', 'epoch_10.pth', 'epoch_9.pth', 'epoch_10.pth\n'])
def test_the_newest_checkpoint_is_found_whatever_the_pointer_says(folder, text):
    (folder / 'last_checkpoint').unlink()
    if text is not None:
        (folder / 'last_checkpoint').write_text(text)
    assert find_checkpoint(folder) == folder / 'epoch_10.pth'


def test_a_pointer_to_one_of_an_earlier_training_stays(folder):
    """With a larger number, but written before the one that the pointer names."""
    os.utime(folder / 'epoch_2.pth', (99, 99))
    (folder / 'last_checkpoint').write_text('epoch_2.pth')
    assert find_checkpoint(folder) == folder / 'epoch_2.pth'


def test_a_damaged_checkpoint_gives_way_to_the_one_before(folder):
    for name in ('epoch_9.pth', 'epoch_2.pth'):
        last = find_checkpoint(folder)
        last.write_bytes(last.read_bytes()[:-100])
        assert find_checkpoint(folder).name == name
    (folder / 'epoch_2.pth').write_bytes(b'')
    with pytest.raises(InputError, match='none of the 3 checkpoints in .* is whole: epoch_10.pth is damaged'):
        find_checkpoint(folder)


def test_a_renamed_folder_uses_its_own_checkpoint_not_that_of_a_folder_with_its_old_name(folder, tmp_path_factory):
    moved = tmp_path_factory.mktemp('moved') / 'run'
    shutil.copytree(folder, moved)
    assert find_checkpoint(moved) == moved / 'epoch_10.pth'


WRAPPED = {
    'model': lambda weights: dict(model=weights, epoch=3),
    'net and its accuracy': lambda weights: dict(net=weights, acc=torch.tensor(93.)),
    'one in the other': lambda weights: dict(model=dict(state_dict=weights)),
    'DDP': lambda weights: dict(state_dict={f'module.{key}': value for key, value in weights.items()}),
    'a distiller under DDP': lambda weights: dict(state_dict={f'module.student.{key}': value for key, value in weights.items()}
                                                  | {'module.losses.kd.x': torch.zeros(1)}),
    'compiled, under DDP': lambda weights: {f'module._orig_mod.{key}': value for key, value in weights.items()},
    'averaged alone': lambda weights: dict(state_dict_ema=weights),
    "torch's AveragedModel": lambda weights: {'n_averaged': torch.tensor(3)} | {f'module.{key}': value
                                                                              for key, value in weights.items()},
    "mmengine's average": lambda weights: dict(state_dict={'steps': torch.tensor(3)} | {
        f'module.{key}': value for key, value in weights.items()}),
    'Lightning': lambda weights: dict(state_dict={f'model.{key}': value for key, value in weights.items()}),
    'Lightning, beside a loss': lambda weights: dict(state_dict={f'model.net.{key}': value for key, value in weights.items()}
                                                     | {'criterion.weight': torch.ones(4)}),
    'without counters': lambda weights: {key: value for key, value in weights.items() if 'num_batches' not in key},
}


@pytest.mark.parametrize('how', WRAPPED)
def test_weights_as_others_wrap_them(tmp_path, how):
    weights = student(seed=1).state_dict()
    torch.save(WRAPPED[how](weights), tmp_path / 'theirs.pth')
    file = tmp_path / 'theirs.pth'
    as_teacher, as_start, as_part = student(), Distiller(student()), student()
    load_network(as_teacher, file, 'teacher')
    as_start.load_state_dict(student_from(read_checkpoint(file), as_start, str(file)))        # load_from
    fill(PretrainedInit(str(file)), as_part)
    for filled in (as_teacher, as_start.student, as_part):
        for key, value in filled.state_dict().items():
            assert torch.equal(value, weights[key])


@pytest.mark.parametrize('change, reason', [
    (lambda weights: dict(weights, **{'head.fc.weight': torch.zeros(4, 16, dtype=torch.int8)}),
     'head.fc.weight is torch.int8, not torch.float32'),
    (lambda weights: dict(weights, **{'head.fc.weight': torch.zeros(7, 16)}), r'head.fc.weight is \(7, 16\), not \(4, 16\)'),
    (lambda weights: dict(weights, **{'head.fc.bias': torch.full((4, ), torch.nan)}), 'head.fc.bias in it is not finite'),
    (lambda weights: {key: 1.0 for key in weights}, 'it holds backbone.stem.0.weight'),
    (lambda weights: {f'{part}.{key}': value for key, value in weights.items() for part in ('query', 'key')},
     'no backbone.stem.0.weight')])
def test_weights_that_do_not_fit_start_no_training(tmp_path, change, reason):
    file = tmp_path / 'theirs.pth'
    torch.save(change(student(seed=1).state_dict()), file)
    model = Distiller(student())
    with pytest.raises(InputError, match=f'^{file} .*{reason}'):
        student_from(read_checkpoint(file), model, str(file))
    with pytest.raises(InputError, match=f'^{file} .*{reason}'):
        load_network(student(), file, 'teacher')


@pytest.mark.parametrize('prefix, change, reason', [
    ('backbone', lambda weights: {f'student.{key}': value for key, value in weights.items()},
     r'has no weights backbone.\* of a ResNetCIFAR, such as backbone.stem.0.weight: it has student.backbone.stem.0.weight'),
    ('backbone.', lambda weights: {key: 1.0 for key in weights}, 'has no weights of a network'),
    ('backbone', lambda weights: {key: value.to(torch.int8) for key, value in weights.items()}, 'has no weights backbone'),
    ('backbone', lambda weights: weights | {'backbone.stem.0.weight': torch.full((8, 3, 3, 3), torch.nan)}, 'is not finite')])
def test_a_part_is_not_filled_with_nothing(tmp_path, prefix, change, reason):
    """``init_cfg=dict(type='Pretrained')``."""
    file = tmp_path / 'theirs.pth'
    torch.save(change(dict(student(seed=1).state_dict())), file)
    with pytest.raises(InputError, match=f'^{file} .*{reason}') as error:
        fill(PretrainedInit(str(file), prefix), student().backbone)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('content, held', [(dict(generator=dict(w=torch.zeros(1)), epoch=3), 'it holds generator, epoch'),
                                           (dict(state_dict={}), 'it holds state_dict'), ({}, 'it holds nothing'),
                                           (dict(model='resnet20', acc=0.9), 'it holds model, acc')])
def test_a_file_without_weights_says_what_it_holds(tmp_path, content, held):
    torch.save(content, tmp_path / 'theirs.pth')
    with pytest.raises(InputError, match=held) as error:
        load_network(student(), tmp_path / 'theirs.pth', 'teacher')
    assert '\n' not in str(error.value) and 'state_dict, model, net' in str(error.value)


def test_one_counter_that_is_missing_is_another_network(tmp_path):
    """Old files have none at all."""
    weights = student(seed=1).state_dict()
    del weights[next(key for key in weights if 'num_batches' in key)]
    torch.save(weights, tmp_path / 'theirs.pth')
    with pytest.raises(InputError, match='no .*num_batches_tracked'):
        load_network(student(), tmp_path / 'theirs.pth', 'teacher')


@pytest.mark.parametrize('names', [float('nan'), 'abcd', dict(a=1), 3, [None], [['a']]])
def test_names_of_classes_that_are_none(names):
    with pytest.raises(InputError, match='a.pth: dataset_meta.classes is a list of names, got '):
        class_names_in(dict(meta=dict(dataset_meta=dict(classes=names))), 'a.pth')


@pytest.mark.parametrize('checkpoint', [{}, dict(meta=None), dict(meta=3), dict(meta=dict(dataset_meta=[])),
                                        dict(meta=dict(dataset_meta=dict(classes=())))])
def test_a_checkpoint_may_tell_no_names_of_classes(checkpoint):
    assert class_names_in(checkpoint, 'a.pth') is None
