"""tools/linear_probe.py, plot_tsne.py and plot_resolution.py as a user calls them, on a student that sees 8 of 16×16 px."""
import json
from pathlib import Path

import pytest
import torch
import utils
from mmengine.config import Config
from tiny import CLASSES, IMAGES, MEAN, SIZE, STD, TinyImages, config, crrcd, random_images, train, write_teacher

from mmcrrcd.datasets import ImageArrays, downsample
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation import classifier
from mmcrrcd.evaluation.batch_norm import fit_batch_norms, training_images
from mmcrrcd.evaluation.classifier import load_classifier
from mmcrrcd.evaluation.data import NAMED
from mmcrrcd.evaluation.embeddings import accuracy
from mmcrrcd.evaluation.linear_probe import PROTOCOL
from mmcrrcd.models.networks import extract
from mmcrrcd.registry import DATASETS
from tools._networks import load_networks



@DATASETS.register_module()
class TinyDigits(ImageArrays):
    """Stands in for a public data set: other classes, other images, twice the size."""

    def __init__(self, data_root: str, split: str):
        images, labels = random_images(seed=2 if split == 'train' else 3, n=48 if split == 'train' else 32)
        super().__init__(images.repeat(2, 1).repeat(2, 2), labels // 2, ['even', 'odd'], data_root)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    teacher = write_teacher(folder / 'teacher.pth')
    cfg = config(folder / 'student', crrcd(teacher, resolution=8), epochs=2)
    cfg.dump(folder / 'student.py')
    train(cfg)
    return folder


@pytest.fixture
def tool(run, monkeypatch, capsys):
    """Runs a tool in the folder of the training, returns its output."""
    monkeypatch.chdir(run)
    monkeypatch.setitem(NAMED, 'svhn', 'TinyDigits')

    def call(name: str, *args) -> str:
        utils.tool(name, *args)
        return capsys.readouterr().out
    return call


def test_linear_probe(tool):
    out = tool('linear_probe.py', 'student.py', 'student', '--dataset', 'svhn', '--seeds', 2, '--json', 'deep/probe.json')
    result = json.loads(Path('deep/probe.json').read_text())
    assert out.splitlines()[0] == '48 training and 32 test images; pixels: 32 x 32 -> 16 x 16 -> 8 x 8'
    assert result['protocol'] == PROTOCOL | dict(milestones=list(PROTOCOL['milestones']))
    assert (result['images'], result['classes'], result['width']) == (dict(train=48, test=32), 2, 16)
    assert result['seeds'] == [0, 1] and len(result['last_epoch']) == 2
    assert result['mean'] == sum(result['last_epoch']) / 2 and result['mean'] > 70    # brightness tells the class
    assert all(last <= best for last, best in zip(result['last_epoch'], result['best_epoch'], strict=True))
    assert {'command', 'versions', 'hardware'} <= set(result)
    assert out.splitlines()[-1] == f'svhn: {result["mean"]:.2f} ± {result["std"]:.2f} %'


def test_linear_probe_of_the_teacher_at_another_resolution(tool):
    out = tool('linear_probe.py', 'student.py', 'teacher.pth', '--teacher', '--dataset', 'svhn', '--seeds', 1,
               '--resolution', 12, '--image-size', 20, '--json', 'teacher.json')
    assert 'pixels: 32 x 32 -> 20 x 20 -> 12 x 12' in out
    result = json.loads(Path('teacher.json').read_text())
    assert (result['network'], result['width'], result['std']) == ('teacher', 32, None)


def test_tsne(tool):
    out = tool('plot_tsne.py', '--run', 'student.py', 'student', 'CRRCD', '--run', 'student.py', 'student/epoch_2.pth', 'again',
               '--teacher', '--classes', 'class3', 'class1', '--per-class', 5, '--perplexity', 4, '--out', 'pictures/map.png')
    assert Path('pictures/map.png').stat().st_size > 10_000
    result = json.loads(Path('pictures/map.json').read_text())
    assert result['classes'] == ['class3', 'class1'] and result['images'] == 10
    rows = {row.pop('label'): row for row in result['networks']}
    assert list(rows) == ['CRRCD', 'again', 'teacher'] and rows['CRRCD'] == rows['again'] != rows['teacher']
    assert rows['CRRCD']['pixels'] == '16 x 16 -> 8 x 8' and rows['teacher']['pixels'] == '16 x 16'
    assert rows['teacher']['width'] == 32
    for name, row in rows.items():
        assert f'{name}: silhouette {row["silhouette"]:.3f}, 5 nearest neighbors {row["knn_accuracy"]:.1f} %' in out


@pytest.mark.parametrize('options, at', [
    ([], dict(scale_to=8)), (['--direct'], dict(scale_to=None)),
    (['--interpolation', 'bicubic', '--no-antialias'], dict(scale_to=8, interpolation='bicubic', antialias=False))])
def test_resolution(tool, options, at):
    tool('plot_resolution.py', '--run', 'student.py', 'student', 'CRRCD', '--teacher', 'teacher.pth', *options,
         '--resolutions', 16, 8, 12, '--out', 'resolution.png')
    assert Path('resolution.png').stat().st_size > 10_000
    result = json.loads(Path('resolution.json').read_text())
    assert result['resolutions'] == [8, 12, 16] and result['images'] == IMAGES
    assert result['input_size'] == dict(CRRCD=8, teacher=16)
    data = TinyImages(seed=1)
    student, teacher = load_classifier('student.py', 'student'), load_classifier('student.py', '', teacher=True)
    settings = dict(interpolation='bilinear', antialias=True) | at
    curves = {name: [accuracy(network.at(side, **settings | dict(scale_to=at['scale_to'] and network.input_size)), data, name)
                     for side in (8, 12, 16)] for name, network in (('CRRCD', student), ('teacher', teacher))}
    assert result['accuracy'] == curves
    assert curves['teacher'][2] == accuracy(teacher, data, 'as they are')
    if '--no-antialias' not in options:
        assert curves['CRRCD'][0] == accuracy(student, data, 'as in its training')


def test_resolution_of_a_network_for_all(tool):
    """One trained with several resolutions sees each in its own size, beside one that sees all scaled to 8 pixels."""
    text = Path('student.py').read_text()
    assert 'resolution=8' in text
    Path('all.py').write_text(text.replace('resolution=8', 'resolution=8, train_resolutions=[8, 16]'))
    tool('plot_resolution.py', '--run', 'all.py', 'student', 'all', '--run', 'student.py', 'student', 'one',
         '--resolutions', 8, 16, '--out', 'resolution.png')
    result = json.loads(Path('resolution.json').read_text())
    assert result['scaled_to'] == dict(all=None, one=8)
    data, network = TinyImages(seed=1), load_classifier('all.py', 'student')
    assert result['accuracy']['all'] == [accuracy(network.at(side), data, '') for side in (8, 16)]
    assert result['accuracy']['one'] == [accuracy(network.at(side, 8), data, '') for side in (8, 16)]


def test_resolution_with_batch_norms_of_each(tool):
    """A line more, for the network of several resolutions only; the first is what it was without."""
    text = Path('student.py').read_text()
    Path('all.py').write_text(text.replace('resolution=8', 'resolution=8, train_resolutions=[8, 16]'))
    tool('plot_resolution.py', '--run', 'all.py', 'student', 'all', '--run', 'student.py', 'student', 'one', '--batch-norms',
         '--resolutions', 8, 16, '--out', 'resolution.png')
    found = json.loads(Path('resolution.json').read_text())['accuracy']
    assert list(found) == ['all', 'all, own batch norms', 'one']
    data, cfg, expected = TinyImages(seed=1), Config.fromfile('all.py'), []
    assert found['all'] == [accuracy(load_classifier('all.py', 'student').at(side), data, '') for side in (8, 16)]
    for side in (8, 16):
        network = load_classifier('all.py', 'student').at(side)
        fit_batch_norms(network.network, cfg, training_images(cfg), side)
        expected.append(accuracy(network, data, ''))
    assert found['all, own batch norms'] == expected


@pytest.mark.parametrize('options', [[], ['--direct']])
@pytest.mark.parametrize('own', ['bilinear', 'bicubic'])
def test_images_are_scaled_up_as_in_the_training_however_they_were_reduced(tool, own, options, monkeypatch):
    """The way of ``--interpolation`` is that of the camera; the network scales up in the way of its training."""
    text = Path('student.py').read_text()
    Path('upsampled.py').write_text(text.replace('resolution=8', f"resolution=8, upsample=True, interpolation='{own}'"))
    shown = []
    monkeypatch.setattr(classifier, 'extract', lambda network, images: shown.append(images) or extract(network, images))
    tool('plot_resolution.py', '--run', 'upsampled.py', 'student', 'upsampled', '--resolutions', 8, '--interpolation',
         'nearest', *options, '--out', 'resolution.png')
    assert json.loads(Path('resolution.json').read_text())['scaled_to'] == dict(upsampled=16)
    images = TinyImages(seed=1).__getitems__(torch.arange(IMAGES))['inputs']
    scaled = downsample(downsample(images, 8, 'nearest'), 16, own)
    seen = (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(torch.cat(shown), seen)


def test_statistics_of_each_resolution(run, monkeypatch):
    """The averages are those of its batches."""
    from mmcrrcd.evaluation import batch_norm as statistics
    monkeypatch.chdir(run)
    Path('all.py').write_text(Path('student.py').read_text().replace('resolution=8', 'resolution=8, train_resolutions=[8, 16]'))
    monkeypatch.setattr(statistics, 'BATCHES', 3)
    cfg = Config.fromfile('all.py')
    for side in (8, 16):
        seen, network = [], load_classifier('all.py', 'student').network
        norm = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
        norm.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].mean((0, 2, 3))))
        fit_batch_norms(network, cfg, training_images(cfg), side)
        assert len(seen) == 3
        torch.testing.assert_close(norm.running_mean, torch.stack(seen).mean(0), rtol=1e-4, atol=1e-5)


RUN, SVHN = ('--run', 'student.py', 'student', 'a'), ('--dataset', 'svhn')


@pytest.mark.parametrize('name, args, message', [
    ('linear_probe.py', ['student.py', 'nothing', *SVHN], 'no checkpoint at nothing'),
    ('linear_probe.py', ['student.py', 'student', *SVHN, '--seeds', '0'], '--seeds is a number of classifiers, got 0'),
    ('linear_probe.py', ['student.py', 'teacher.pth', *SVHN], 'teacher.pth is not a checkpoint of this student: '),
    ('linear_probe.py', ['student', 'student.py', *SVHN], 'there is no config student'),
    ('linear_probe.py', ['teacher.pth', 'student', *SVHN], 'teacher.pth is no config: configs are Python files'),
    ('linear_probe.py', ['student.py', 'student', *SVHN, '--resolution', '-3'], 'resolution is a number of pixels'),
    ('linear_probe.py', ['student.py', 'student', *SVHN, '--resolution', '0'], 'resolution is a number of pixels'),
    ('linear_probe.py', ['student.py', 'student', *SVHN, '--image-size', '-5'], '--image-size is a number of pixels, got -5'),
    ('plot_tsne.py', [*RUN, *RUN], "two networks are called 'a'"),
    ('plot_tsne.py', [*RUN, '--classes', 'class9', 'class1'], "there is no class 'class9'; the classes are class0, class1, "),
    ('plot_tsne.py', [*RUN, '--classes', 'class1'], '--classes names two or more, got class1 alone'),
    ('plot_tsne.py', RUN, f'more than 30 images are needed (--perplexity), but only {IMAGES} are chosen'),
    ('plot_resolution.py', [*RUN, '--out', 'numbers.json'], 'numbers.json ends in none of .png, .pdf, .svg, .jpg'),
    ('plot_tsne.py', [*RUN, '--out', 'student.py/map.png'], 'student.py/map.png cannot be written: student.py is no folder'),
    ('plot_tsne.py', [*RUN, '--out', 'folder/map.png'], 'folder/map.json cannot be written: it is a folder'),
    ('linear_probe.py', ['student.py', 'student', *SVHN, '--json', 'student'], 'student cannot be written: it is a folder'),
    ('plot_resolution.py', [*RUN, '--resolutions', '8', '24'], '--resolutions go from 1 to the 16 pixels of the images'),
    ('plot_resolution.py', [*RUN, '--batch-norms', '--resolutions', '8'], '--batch-norms is for students trained at several'),
    ('plot_resolution.py', [*RUN, *SVHN, '--resolutions', '8'], f'a, 8 pixels knows {CLASSES} classes, the data have 2'),
])
def test_bad_input_is_one_line(tool, name, args, message):
    if name == 'plot_tsne.py':
        pytest.importorskip('sklearn')
    Path('folder/map.json').mkdir(parents=True, exist_ok=True)
    with pytest.raises(SystemExit) as error:
        tool(name, *args)
    assert str(error.value).startswith(f'error: {message}') and '\n' not in str(error.value)


@pytest.mark.parametrize('option, value', [('--per-class', 1), ('--perplexity', 0), ('--seed', -1)])
def test_numbers_that_make_no_map_are_refused(tool, option, value, capsys):
    with pytest.raises(SystemExit):
        tool('plot_tsne.py', *RUN, option, value)
    assert '--per-class is 2 or more, --perplexity above 0, --seed 0 or more' in capsys.readouterr().err


def test_networks_by_label(run):
    def runs(labels: str | list[str]) -> list[tuple[str, str, str]]:
        return [(str(run / 'student.py'), str(run / 'student'), label) for label in labels]

    teacher = str(run / 'teacher.pth')
    assert list(load_networks(runs('ab'), None)) == ['a', 'b']
    networks = load_networks(runs('ab'), teacher)
    assert list(networks) == ['a', 'b', 'teacher'] and networks['teacher'].input_size == SIZE and networks['a'].input_size == 8
    for wrong, name, given in (('aa', 'a', None), (['a', 'teacher'], 'teacher', '')):
        with pytest.raises(InputError, match=f"two networks are called '{name}'"):
            load_networks(runs(wrong), given)
