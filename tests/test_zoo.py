"""The model zoo: every student in it is worth what its metafile says; new ones are written by the tool; damage is one line."""
import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import CLASSES, TinyImages, config, crrcd, train, write_teacher
from utils import shared_file, tool

import mmcrrcd
from mmcrrcd import zoo
from mmcrrcd.checkpoint import read_checkpoint
from mmcrrcd.errors import InputError
from mmcrrcd.registry import DATASETS
from mmcrrcd.safetensors_file import read_safetensors, to_safetensors

LARGEST, ALL = 1_500_000, 12_000_000                     # bytes of a student, and of all
SAMPLE = 500
FIRST = 'resnet8_glyphs_8px'                              # whose images are drawn here


def images_of(known: dict) -> tuple[np.ndarray, np.ndarray]:
    """The images (N, H, W, 3) and labels that a metafile's accuracy is of; those of CIFAR-100 from the reference material."""
    settings = known['config']['test_dataloader']['dataset']
    if settings['type'].endswith('CIFAR100Arrays'):
        return runpy.run_path(str(shared_file('data', 'unpack.py')))['cifar100_arrays']('test')
    data = DATASETS.build(settings)
    return data.images.numpy(), data.labels.numpy()


def percent(name: str, side: str, images: np.ndarray, labels: np.ndarray) -> float:
    answers = mmcrrcd.load_student(name, resolution=int(side)).predict(images, batch_size=500)
    return 100 * float(np.mean([answer.label == label for answer, label in zip(answers, labels)]))


@pytest.mark.parametrize('name', zoo.names())
def test_a_student_of_the_zoo_has_its_accuracy(name):
    """On a sample of its test images, up to four standard errors."""
    known = zoo.read_metafile(zoo.find(name))
    images, labels = images_of(known)
    some = np.linspace(0, len(images) - 1, SAMPLE).astype(int)
    assert len(images) == known['images'] and len(known['classes']) == labels.max() + 1
    for side, wanted in known['accuracy'].items():
        error = 4 * (wanted * (100 - wanted) / SAMPLE) ** 0.5
        assert percent(name, side, images[some], labels[some]) == pytest.approx(wanted, abs=error)


@pytest.mark.slow
@pytest.mark.parametrize('name', zoo.names())
def test_a_student_of_the_zoo_has_its_accuracy_on_all_images(name):
    known = zoo.read_metafile(zoo.find(name))
    for side, wanted in known['accuracy'].items():
        assert percent(name, side, *images_of(known)) == pytest.approx(wanted, abs=0.05)


def test_the_zoo_is_small():
    sizes = [zoo.find(name).stat().st_size for name in zoo.names()]
    assert sizes and max(sizes) <= LARGEST and sum(sizes) <= ALL
    assert {path.suffix for path in zoo.FOLDER.iterdir() if path.is_file()} == {'.py', '.json', '.safetensors'}


def test_predict_by_a_name(tmp_path):
    image = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / 'image.png')
    name = FIRST
    tool('predict.py', tmp_path, '--zoo', name, '--json', tmp_path / 'answers.json')
    answer, = json.loads((tmp_path / 'answers.json').read_text())['images']
    expected, = mmcrrcd.load_student(name).predict(image)
    assert answer['classes'][0] == dict(name=expected.name, label=expected.label,
                                        probability=pytest.approx(expected.probability, abs=1e-5))


def test_an_unknown_name_is_one_line_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = FIRST
    line = f"the model zoo has no student '{name}s', only .*; did you mean '{name}'?"
    with pytest.raises(FileNotFoundError, match=f'no checkpoint at {name}s, and {line}'):
        mmcrrcd.load_student(f'{name}s')
    (tmp_path / 'image.png').touch()
    with pytest.raises(SystemExit, match=f'error: {line}'):
        tool('predict.py', 'image.png', '--zoo', f'{name}s')
    with pytest.raises(SystemExit, match=r"error: the model zoo has no student '\.\./zoo/"):
        tool('predict.py', 'image.png', '--zoo', f'../zoo/{name}')
    for students in ([], ['a', '--zoo', 'b']):
        with pytest.raises(SystemExit, match='2'):       # by argparse
            tool('predict.py', 'image.png', *students)


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / FIRST).mkdir()
    with pytest.raises(FileNotFoundError, match=f'no checkpoint at {FIRST}$'):
        mmcrrcd.load_student(FIRST)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Of a student of 8 px, and of one of several resolutions."""
    folder = tmp_path_factory.mktemp('runs')
    several = crrcd(write_teacher(folder / 'teacher.pth'))
    several['data_preprocessor'] |= dict(train_resolutions=[4, 8, 16])
    train(config(folder / 'one', crrcd(folder / 'teacher.pth'), epochs=1))
    train(config(folder / 'several', several, epochs=1))
    return folder


@pytest.mark.parametrize('run, sides', [('one', ['8']), ('several', ['4', '8', '16'])])
def test_the_tool_writes_what_can_be_loaded(runs, run, sides, tmp_path):
    file = tmp_path / 'zoo' / 'mine.safetensors'
    tool('export_student.py', runs / run, '--zoo', file, '--command', 'python tools/train.py mine.py')
    known, data = zoo.read_metafile(file), TinyImages(seed=1)
    assert list(known['accuracy']) == sides and known['images'] == len(data) and known['data'] == 'TinyImages'
    assert list(known['teacher']) == ['16'] and 0 <= known['teacher']['16'] <= 100
    assert known['command'] == 'python tools/train.py mine.py' and known['classes'] == [f'class{i}' for i in range(CLASSES)]
    for side, wanted in known['accuracy'].items():
        assert percent(str(file), side, data.images.numpy(), data.labels.numpy()) == pytest.approx(wanted, abs=0.01)
    student, trained = mmcrrcd.load_student(file), mmcrrcd.load_student(runs / run)
    assert str(student) == str(trained) and student.classes == trained.classes
    for image in data.images[:4].numpy():
        one, other = student.predict(image)[0], trained.predict(image)[0]
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=2e-3)        # float16
    with pytest.raises(SystemExit, match=r'mine\.safetensors is there already: add --overwrite'):
        tool('export_student.py', runs / run, '--zoo', file, '--command', 'x')


def test_a_student_of_the_zoo_is_exported_as_one_of_a_training(tmp_path, monkeypatch):
    pytest.importorskip('onnxscript')
    monkeypatch.chdir(tmp_path)
    name, image = FIRST, np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
    tool('export_student.py', name, '--onnx', 'student.onnx')
    expected, = mmcrrcd.load_student(name).predict(image)
    for exported in (name, 'student.onnx'):              # a folder of that name comes first now
        answer, = mmcrrcd.load_student(exported).predict(image)
        assert answer.name == expected.name
        np.testing.assert_allclose(answer.probabilities, expected.probabilities, atol=1e-4)


@pytest.mark.parametrize('options, message', [
    (['--zoo', 'a.safetensors'], '--zoo FILE and --command TEXT go together'),
    (['--command', 'x'], '--zoo FILE and --command TEXT go together'),
    (['--zoo', 'a.pth', '--command', 'x'], 'ends in .safetensors, got a.pth'),
    (['--zoo', 'a.safetensors', '--command', 'x', '--onnx', 'b.onnx'], 'leave --onnx out'),
])
def test_wrong_options_are_one_line(runs, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f'error: .*{message}'):
        tool('export_student.py', runs / 'one', *options)
    assert not list(tmp_path.iterdir())


def changed(**values):
    def change(file: Path) -> None:
        metafile = file.with_suffix('.json')
        metafile.write_text(json.dumps(json.loads(metafile.read_text()) | values))

    return change


def with_network(**settings):
    config = json.loads(zoo.find(FIRST).with_suffix('.json').read_text())['config']
    config['model']['student'] |= settings
    return changed(config=config)


@pytest.mark.parametrize('damage, message', [
    (lambda file: file.write_bytes(file.read_bytes()[:-1]), r'safetensors is damaged: it is not the file whose checksum'),
    (lambda file: file.with_suffix('.json').unlink(), r'json is missing, or name a config'),
    (lambda file: file.with_suffix('.json').write_text('{'), r'json is damaged, or no metafile of a student'),
    (lambda file: file.with_suffix('.json').write_text('[]'), r'json is damaged, or no metafile of a student'),
    (lambda file: file.with_suffix('.json').write_bytes(b'\xff'), r'json is damaged, or no metafile of a student'),
    (changed(classes='AB'), r'json is no metafile of a student: its classes is no list'),
    (changed(classes=['A', 'B']), r'names 2 classes, its student knows 40'),
    (changed(config={}), r'json has no model'),
    (changed(config=dict(model=7, test_dataloader=7)), r'json does not describe a student'),
    (with_network(neck=dict(type='os.system', command='touch ran')), r"'os\.system' is no network"),
    (with_network(backbone=dict(type='mmcrrcd.ResNetCIFAR', depth=14)), r'is not a checkpoint of this student: no backbone'),
])
def test_damage_is_one_line(damage, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / 'student.safetensors'
    for suffix in ('.safetensors', '.json'):
        shutil.copy(zoo.find(FIRST).with_suffix(suffix), file.with_suffix(suffix))
    damage(file)
    with pytest.raises(InputError, match=message) as error:
        mmcrrcd.load_student(file)
    assert '\n' not in str(error.value) and not (tmp_path / 'ran').exists()


WEIGHTS = dict(a=torch.arange(6).reshape(2, 3).half(), b=torch.tensor(7), c=torch.empty(0, 4), d=torch.tensor([True, False]),
               e=torch.tensor([1.5, -2]).bfloat16())


def test_safetensors_come_back(tmp_path):
    file = tmp_path / 'a.safetensors'
    file.write_bytes(to_safetensors(WEIGHTS))
    found = read_checkpoint(file)
    assert found.keys() == WEIGHTS.keys()
    for name, tensor in WEIGHTS.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype


def test_safetensors_are_those_of_the_library(tmp_path):
    library = pytest.importorskip('safetensors.torch')
    (tmp_path / 'a').write_bytes(to_safetensors(WEIGHTS))
    library.save_file(WEIGHTS, tmp_path / 'b', metadata=dict(format='pt'))
    for found in (library.load_file(tmp_path / 'a'), read_safetensors(tmp_path / 'b')):
        assert all(torch.equal(found[name], tensor) for name, tensor in WEIGHTS.items()) and found.keys() == WEIGHTS.keys()


def content(header, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, 'little') + text + data


@pytest.mark.parametrize('bad', [
    b'', b'PK\x03\x04', content(b'{'), content([]), content(b'[' * 100_000), content(dict(a=7)),
    b'\xff' * 8 + b'{}',                                                                    # a header longer than the file
    content(dict(a=dict(dtype='F32', shape=[2], data_offsets=[4, 12]))),                    # beyond the end
    content(dict(a=dict(dtype='F32', shape=[2], data_offsets=[-4, 4]))),
    content(dict(a=dict(dtype='F32', shape=[3], data_offsets=[0, 8]))),                     # another size
    content(dict(a=dict(dtype='F32', shape=[-1, -2], data_offsets=[0, 8]))),
    content(dict(a=dict(dtype='F32', shape=[2.0], data_offsets=[0, 8]))),
    content(dict(a=dict(dtype='object', shape=[2], data_offsets=[0, 8]))),
    content(dict(a=dict(dtype='F32', shape='ab', data_offsets=[0, 8]))),
    content(dict(a=dict(dtype='F32', shape=[2 ** 62, 4], data_offsets=[0, 8]))),
])
def test_damaged_safetensors_are_one_line(bad, tmp_path):
    (tmp_path / 'a.safetensors').write_bytes(bad)
    with pytest.raises(InputError, match=r'a\.safetensors is damaged, or no safetensors file'):
        read_checkpoint(tmp_path / 'a.safetensors')
