"""tools/import_teacher.py: the networks that RepDistiller and pytorch-cifar-models published."""
import hashlib
import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from tiny import CLASSES, MEAN, STD, config, network, random_images
from utils import tool

from experiments.runs import about_the_teacher
from mmcrrcd.checkpoint import find_checkpoint, read_network
from mmcrrcd.models.teachers.published import converted
from mmcrrcd.registry import MODELS

NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')


def norm(name: str) -> list[str]:
    return [f'{name}.{part}' for part in NORM]


def resnet(blocks: int) -> list[str]:
    """The weights of the published class, in the order of its state_dict, as those below; so many blocks a stage."""
    names = ['conv1.weight', *norm('bn1')]
    for stage in (1, 2, 3):
        for number in range(blocks):
            block = f'layer{stage}.{number}'
            names += [f'{block}.conv1.weight', *norm(f'{block}.bn1'), f'{block}.conv2.weight', *norm(f'{block}.bn2')]
            names += [f'{block}.downsample.0.weight', *norm(f'{block}.downsample.1')] if stage > 1 and number == 0 else []
    return [*names, 'fc.weight', 'fc.bias']


def wide_resnet(blocks: int) -> list[str]:
    names = ['conv1.weight']
    for stage in (1, 2, 3):
        for number in range(blocks):
            block = f'block{stage}.layer.{number}'
            names += [*norm(f'{block}.bn1'), f'{block}.conv1.weight', *norm(f'{block}.bn2'), f'{block}.conv2.weight']
            names += [f'{block}.convShortcut.weight'] if number == 0 else []
    return [*names, *norm('bn1'), 'fc.weight', 'fc.bias']


def densenet(layers: int) -> list[str]:
    names = ['conv1.weight']
    for stage in (1, 2, 3):
        for number in range(layers):
            layer = f'block{stage}.layer.{number}'
            names += [*norm(f'{layer}.bn1'), f'{layer}.conv1.weight', *norm(f'{layer}.bn2'), f'{layer}.conv2.weight']
        names += [*norm(f'trans{stage}.bn1'), f'trans{stage}.conv1.weight'] if stage < 3 else []
    return [*names, *norm('bn1'), 'fc.weight', 'fc.bias']


def vgg(*convolutions: int) -> list[str]:
    names = []
    for block, number in enumerate(convolutions):
        for place in range(0, 3 * number, 3):
            names += [f'block{block}.{place}.weight', f'block{block}.{place}.bias', *norm(f'block{block}.{place + 1}')]
    return [*names, 'classifier.weight', 'classifier.bias']


def classifier(kind: str, channels: int, **settings) -> dict:
    return network() | dict(backbone=dict(type=f'mmcrrcd.{kind}', **settings),
                            head=dict(type='mmpretrain.LinearClsHead', num_classes=CLASSES, in_channels=channels))


@pytest.mark.parametrize('names, student', [
    (resnet(blocks=2), classifier('ResNetCIFAR', 64, depth=14)),
    (wide_resnet(blocks=2), classifier('WRNCIFAR', 128, depth=16, width=2)),
    (densenet(layers=2), classifier('DenseNetCIFAR', 60, depth=16)),
    (vgg(1, 1, 1, 1, 1), classifier('VGGCIFAR', 512, depth=8)),
    (vgg(2, 2, 2, 2, 2), classifier('VGGCIFAR', 512, depth=13))], ids=['resnet14', 'wrn_16_2', 'densenet16', 'vgg8', 'vgg13'])
def test_every_weight_gets_its_place(names, student, tmp_path):
    """The order is that of the forward pass in both, but that our wide ResNet has its last norm first."""
    ours = MODELS.build(student).state_dict()
    for i, value in enumerate(ours.values()):            # new norms are all alike
        value.fill_(i)
    order = sorted(ours, key=lambda key: 1 if key.startswith('backbone.last') else 2 if key.startswith('head') else 0)
    theirs = dict(zip(names, (ours[key] for key in order), strict=True))
    torch.save(dict(model=theirs, epoch=240, accuracy=torch.tensor(72.3)), tmp_path / 'ckpt_epoch_240.pth')
    checkpoint = converted(tmp_path / 'ckpt_epoch_240.pth', student['backbone']['type'].removeprefix('mmcrrcd.'))
    assert checkpoint['state_dict'].keys() == ours.keys()
    assert all(torch.equal(checkpoint['state_dict'][key], value) for key, value in ours.items())
    assert checkpoint['meta']['epoch'] == 240


@pytest.fixture
def files(tmp_path):
    """A teacher's config, and a checkpoint of its weights by the published names: bare, as pytorch-cifar-models has them."""
    preprocessor = dict(type='mmcrrcd.PairPreprocessor', mean=MEAN, std=STD)
    cfg = config(tmp_path / 'unused', dict(type='mmcrrcd.Distiller', student=network(), data_preprocessor=preprocessor))
    cfg.dump(tmp_path / 'teacher.py')
    torch.manual_seed(3)
    weights = MODELS.build(network()).state_dict()
    torch.save(dict(zip(resnet(blocks=1), weights.values(), strict=True)), tmp_path / 'published.pt')
    return Namespace(config=tmp_path / 'teacher.py', published=tmp_path / 'published.pt', weights=weights, folder=tmp_path)


def right(weights: dict) -> float:
    """The share of the test images that a network with these weights names rightly."""
    student = MODELS.build(network()).eval()
    student.load_state_dict(weights)
    images, labels = map(torch.from_numpy, random_images(seed=1))
    images = (images.permute(0, 3, 1, 2).float() - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        return (student(images).argmax(1) == labels).float().mean().item()


def test_it_is_tested_and_put_where_students_look(files, monkeypatch, capsys):
    monkeypatch.chdir(files.folder)
    tool('import_teacher.py', files.published, files.config)
    folder = Path('work_dirs/teacher')
    weights = read_network(folder)
    assert all(torch.equal(weights[key], value) for key, value in files.weights.items())
    accuracy = json.loads((folder / 'evaluated.json').read_text())['accuracy/top1']
    assert accuracy == pytest.approx(100 * right(files.weights))
    assert capsys.readouterr().out.splitlines()[-1] == f'{folder}: {accuracy:.2f} % of the test images'
    about = about_the_teacher(str(folder.resolve()))
    assert about['accuracy'] == accuracy and about['epochs'] is None and about['source'] == 'published.pt'
    assert about['source_sha256'] == hashlib.sha256(files.published.read_bytes()).hexdigest()
    before = find_checkpoint(folder).read_bytes()
    with pytest.raises(SystemExit, match='has a training already: move it away, or name another --work-dir'):
        tool('import_teacher.py', files.published, files.config)
    assert find_checkpoint(folder).read_bytes() == before


class Evil:
    def __reduce__(self):
        return print, ('code has run', )


def test_what_is_no_such_checkpoint_is_refused(files, monkeypatch, capsys):
    folder = files.folder
    torch.save(dict(model=Evil()), folder / 'evil.pth')
    torch.save([1, 2], folder / 'list.pth')
    torch.save(MODELS.build(network((8, 8, 16, 32))).state_dict(), folder / 'other.pth')
    (folder / 'page.pth').write_text('<!DOCTYPE html>')
    torch.save({1: torch.zeros(2)}, folder / 'numbers.pth')
    torch.save(dict(model=dict(a=1)), folder / 'no_tensor.pth')
    text, kind = (folder / 'teacher.py').read_text(), "type='mmcrrcd.PairPreprocessor'"
    (folder / 'small.py').write_text(text.replace(kind, f'resolution=8, {kind}'))
    (folder / 'other.py').write_text(text.replace('mmcrrcd.ResNetCIFAR', 'mmpretrain.ResNet_CIFAR'))
    for file, cfg, message in ((folder / 'nothing.pth', files.config, 'there is no checkpoint'),
                               (files.published, folder / 'nothing.py', 'there is no config'),
                               (files.published, folder / 'other.py', 'ResNet_CIFAR has no counterpart'),
                               (files.published, folder / 'small.py', 'is not the config of a teacher'),
                               (folder / 'evil.pth', files.config, 'it has more in it than numbers, builtins.print'),
                               (folder / 'page.pth', files.config, 'loaded safely: it is damaged, or something else'),
                               (folder / 'numbers.pth', files.config, 'is not a checkpoint of this student: '),
                               (folder / 'no_tensor.pth', files.config, 'no_tensor.pth has no weights of a network'),
                               (folder / 'list.pth', files.config, 'holds a list, not a dict of weights'),
                               (folder / 'other.pth', files.config, 'is not a checkpoint of this student: ')):
        with pytest.raises(SystemExit) as error:
            tool('import_teacher.py', file, cfg, '--work-dir', folder / 'run')
        assert str(error.value).startswith('error: ') and message in str(error.value) and '\n' not in str(error.value)
        assert not (folder / 'run' / 'last_checkpoint').exists()
    assert 'code has run' not in capsys.readouterr().out
