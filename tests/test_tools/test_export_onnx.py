"""tools/export_student.py --onnx: the file says what PyTorch says, runs without this package, and the tools take it."""
import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from rich.console import Console
from tiny import CLASSES, config, crrcd, pipeline_loader, train, write_folder, write_teacher
from utils import tool

import mmcrrcd
from mmcrrcd.datasets import downsample
from mmcrrcd.deployment import Measured, onnx_file, tabulate
from mmcrrcd.deployment.onnx_file import resampling

onnx, onnxruntime, _ = map(pytest.importorskip, ('onnx', 'onnxruntime', 'onnxscript'))

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A student that saw 8×8 px, in both formats, with the test images as files in the order of the arrays."""
    folder = tmp_path_factory.mktemp('onnx')
    runner = train(config(folder / 'run', crrcd(write_teacher(folder / 'teacher.pth')), epochs=2))
    images = write_folder(folder / 'images', seed=1)
    tool('export_student.py', folder / 'run', '--onnx', folder / 'student.onnx', '--int8', images)
    return dict(folder=folder, images=images, accuracy=runner.message_hub.get_scalar('val/accuracy/top1').current(),
                config=next((folder / 'run').glob('*.py')))


@pytest.fixture
def exported_before(run, monkeypatch):
    """PyTorch's exporter, which takes seconds, gives what it has made of this student before."""
    before = SimpleNamespace(model_proto=onnx.load(run['folder'] / 'student.onnx'))
    monkeypatch.setattr(torch.onnx, 'export', lambda *_, **__: before)


def small(seed: int, n: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(n, 8, 8, 3), dtype=np.uint8)


def test_what_the_file_takes_gives_and_tells(run):
    session = onnxruntime.InferenceSession(run['folder'] / 'student.onnx')
    (images, ), (probabilities, ) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape[1:]) == ('images', 'tensor(uint8)', [8, 8, 3])
    assert (probabilities.name, probabilities.type, probabilities.shape[1:]) == ('probabilities', 'tensor(float)', [CLASSES])
    student = mmcrrcd.load_student(run['folder'] / 'run')
    for n in (1, 2, 7):
        found = session.run(None, {'images': small(n, n)})[0]
        np.testing.assert_allclose(found, student.ask(small(n, n)), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    for name in ('student.onnx', 'student_int8.onnx'):
        notes = onnxruntime.InferenceSession(run['folder'] / name).get_modelmeta().custom_metadata_map
        assert json.loads(notes['classes']) == [f'class{i}' for i in range(CLASSES)]
        assert json.loads(notes['view'])['resolution'] == [8, 8]


def test_the_lines_of_the_page_run_it(run, tmp_path, monkeypatch, capsys):
    page = (ROOT / 'docs' / 'deployment.md').read_text(encoding='utf-8')
    lines, = [code for code in re.findall(r'```python\n(.*?)```', page, re.DOTALL) if 'onnxruntime' in code]
    assert 'mmcrrcd' not in lines and 'torch' not in lines and len(lines.splitlines()) <= 8
    (tmp_path / 'student.onnx').write_bytes((run['folder'] / 'student.onnx').read_bytes())
    Image.fromarray(small(3)[0]).save(tmp_path / 'image.png')
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    name, probability = capsys.readouterr().out.split()
    answer, = mmcrrcd.load_student(run['folder'] / 'run').predict('image.png')
    assert name == answer.name and float(probability) == pytest.approx(answer.probability, abs=1e-5)


def test_int8_is_int8_and_the_table_tells_what_each_file_costs(run, exported_before, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('COLUMNS', '200')
    monkeypatch.chdir(tmp_path)
    tool('export_student.py', run['folder'] / 'run', '--onnx', 'x.onnx', '--int8', run['images'], '--out', 'out')
    kinds = {node.op_type for node in onnx.load('x_int8.onnx').graph.node}
    assert {'QuantizeLinear', 'DequantizeLinear', 'Conv'} <= kinds
    weights = {each.name: each.data_type for each in onnx.load('x_int8.onnx').graph.initializer}
    assert onnx.TensorProto.INT8 in weights.values()
    output = capsys.readouterr().out
    assert re.search(r'wrote x.onnx: probabilities differ from PyTorch by at most \d.\de-\d\d on 24 images', output)
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for line in output.splitlines()
            if len(cells := re.split('[│┃]', line)) == 9}
    assert list(rows) == ['file', 'student.pth', 'x.onnx', 'x_int8.onnx']
    network = mmcrrcd.load_student('out').classifier.network
    parameters = sum(p.numel() for p in network.parameters())
    for name, (size, count, macs, accuracy, median, p95) in list(rows.items())[1:]:
        bytes_of = Path('out' if name == 'student.pth' else '', name).stat().st_size
        assert int(size) == round(bytes_of / 1000) and count == f'{parameters:,}'
        assert macs == rows['x.onnx'][2] and float(macs) > 0
        assert name == 'x_int8.onnx' or accuracy == f'{run["accuracy"]:.2f} %'
        assert 0 < float(median) <= float(p95)


def test_a_narrow_terminal_shows_a_line_for_each_file():
    rows = [Measured(f'work_dirs/my_images/student_16px/student/{name}', 5_000_000, 1_000_000, 11_000_000, 43.2, 64.2, 179.7)
            for name in ('student.pth', 'student_int8.onnx')]
    shown = Console(width=80, file=io.StringIO())
    shown.print(tabulate(rows))
    lines = [line.split('│')[1].strip() for line in shown.file.getvalue().splitlines() if line.startswith('│')]
    assert lines == ['student.pth', 'student_int8.onnx']


def test_macs_of_a_network_that_can_be_counted_by_hand():
    from mmcrrcd.deployment import count_macs
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.BatchNorm2d(5), torch.nn.Flatten(),
                                  torch.nn.Linear(5 * 8 * 4, 7)).eval()
    assert count_macs(network, 8, 4) == 8 * 4 * 5 * 27 + 5 * 8 * 4 * 7


@pytest.mark.parametrize('interpolation, antialias', [('bilinear', True), ('bilinear', False), ('bicubic', True),
                                                      ('bicubic', False), ('area', True), ('nearest', True)])
def test_upsampling_is_two_products(interpolation, antialias):
    images = torch.from_numpy(small(1, 5)[:, :, :6]).permute(0, 3, 1, 2)
    rows, columns = (resampling(*sides, interpolation, antialias) for sides in ((8, 32), (6, 24)))
    found = (rows @ (images.float() @ columns.T)).round().clamp(0, 255)
    assert torch.equal(found, downsample(images, (32, 24), interpolation, antialias).float())


@pytest.mark.slow
@pytest.mark.parametrize('settings, loader', [
    (dict(upsample=True, interpolation='bicubic'), {}), (dict(resolution=None), {}), (dict(), dict(color_type='grayscale')),
    (dict(), dict(color_type='color'))])
def test_students_of_every_kind(tmp_path, settings, loader):
    """Upsampled, at full resolution, gray, in either order of channels: all files say what the test of the training says."""
    model = crrcd(write_teacher(tmp_path / 'teacher.pth'))
    model['data_preprocessor'] |= settings
    changes = {}
    if loader:
        data = pipeline_loader(write_folder(tmp_path / 'images', seed=1), training=False)
        for file in (tmp_path / 'images').rglob('*.png') if loader['color_type'] == 'grayscale' else ():
            Image.open(file).convert('L').save(file)
        data['dataset']['pipeline'] = [dict(type='LoadImageFromFile', **loader), dict(type='PackInputs')]
        evaluator = dict(type='Accuracy', topk=(1, ))
        changes = dict(train_dataloader=data, val_dataloader=data, test_dataloader=data, val_evaluator=evaluator,
                       test_evaluator=evaluator)
    cfg = config(tmp_path / 'run', model, epochs=1, **changes)
    train(cfg)
    files = tmp_path / 'images' if loader else write_folder(tmp_path / 'images', seed=1)
    tool('export_student.py', tmp_path / 'run', '--onnx', tmp_path / 'student.onnx')
    own = next((tmp_path / 'run').glob('*.py'))
    found = {}
    for name, args in dict(run=[own, tmp_path / 'run'], onnx=[own, tmp_path / 'student.onnx'],
                           folder=[tmp_path / 'run' / 'student' / 'student.py', tmp_path / 'run' / 'student' / 'student.pth',
                                   '--cfg-options', f'test_dataloader.dataset.data_root={files}']).items():
        out = tmp_path / f'{name}.json'
        tool('test.py', *args, '--out', out, '--out-item', 'pred', '--work-dir', tmp_path / f'test_{name}')
        rows = json.loads(out.read_text())['predictions']
        found[name] = np.array(sorted(row['pred_score'] for row in rows))
    for name in ('onnx', 'folder'):
        np.testing.assert_allclose(found[name], found['run'], rtol=1e-3, atol=1e-5)
    answers = {name: mmcrrcd.load_student(tmp_path / path).predict(files)
               for name, path in dict(run='run', onnx='student.onnx', folder='run/student').items()}
    for name in ('run', 'onnx', 'folder'):
        np.testing.assert_allclose(sorted(answer.probabilities.tolist() for answer in answers[name]), found['run'], rtol=1e-3,
                                   atol=1e-5)


def test_a_file_that_differs_from_pytorch_is_not_written(run, exported_before, tmp_path, monkeypatch):
    real = onnx_file.probabilities_of
    monkeypatch.setattr(onnx_file, 'probabilities_of', lambda *args: real(*args) + 0.002)
    with pytest.raises(SystemExit, match='x.onnx is not written: a probability differs from PyTorch by 0.002, at most 0.001'):
        tool('export_student.py', run['folder'] / 'run', '--onnx', tmp_path / 'x.onnx', '--out', tmp_path / 'out')
    assert not (tmp_path / 'x.onnx').exists()


def test_an_onnx_file_is_not_gone_over_without_being_told(run, exported_before, tmp_path):
    """Nor is a link followed that has its name."""
    args = ['export_student.py', run['folder'] / 'run', '--onnx', tmp_path / 'x.onnx', '--out', tmp_path / 'out']
    for name, options in (('x.onnx', []), ('x_int8.onnx', ['--int8', run['images']])):
        (tmp_path / name).write_text('kept')
        with pytest.raises(SystemExit, match=f'error: .*{name} is there already: add --overwrite to replace it'):
            tool(*args, *options)
        assert (tmp_path / name).read_text() == 'kept' and not (tmp_path / 'out').exists()
        (tmp_path / name).unlink()
    (tmp_path / 'precious').write_text('kept')
    (tmp_path / 'x.onnx').symlink_to(tmp_path / 'precious')
    tool(*args, '--overwrite')
    assert (tmp_path / 'precious').read_text() == 'kept' and onnx.load(tmp_path / 'x.onnx').graph.node
    assert not list(tmp_path.rglob('*.part'))


@pytest.mark.parametrize('package', ['onnx', 'onnxscript', 'onnxruntime'])
def test_a_missing_package_is_named_with_the_command(run, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit, match=rf"error: {package} is missing: pip install 'mmcrrcd\[onnx\]'"):
        tool('export_student.py', run['folder'] / 'run', '--onnx', tmp_path / 'x.onnx', '--out', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_without_test_images_the_export_says_so(run, exported_before, tmp_path, capsys):
    cfg = Config.fromfile(run['config'])
    missing = dict(type='mmcrrcd.CIFAR10Arrays', data_root=str(tmp_path), split='test')
    cfg.test_dataloader.dataset = cfg.val_dataloader.dataset = missing
    cfg.dump(tmp_path / 'config.py')
    tool('export_student.py', run['folder'] / 'run', '--config', tmp_path / 'config.py', '--out', tmp_path / 'out',
         '--onnx', tmp_path / 'x.onnx')
    output = capsys.readouterr().out
    assert 'no accuracy: ' in output and 'is compared with PyTorch on random pixels' in output and ' – ' in output


@pytest.mark.parametrize('args, message', [
    (['--int8', 'images'], 'an int8 version needs an ONNX file: name it by --onnx'),
    (['--onnx', 'x.pth'], '--onnx ends in .onnx, got x.pth'),
    (['--onnx', 'x.onnx', '--int8', 'nowhere'], 'there is no image or folder nowhere'),
])
def test_bad_options_are_one_line(run, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'images').mkdir()
    Image.fromarray(small(1)[0]).save(tmp_path / 'images' / 'x.png')
    with pytest.raises(SystemExit) as error:
        tool('export_student.py', run['folder'] / 'run', *args)
    assert str(error.value) == f'error: {message}'


@pytest.mark.parametrize('file', ['student.onnx', 'student_int8.onnx'])
def test_the_tools_take_the_file(run, tmp_path, capsys, file):
    tool('test.py', run['config'], run['folder'] / file, '--work-dir', tmp_path / 'test', '--out', tmp_path / 'metrics.json')
    accuracy = json.loads((tmp_path / 'metrics.json').read_text())['accuracy/top1']
    assert file == 'student_int8.onnx' or accuracy == run['accuracy']
    tool('predict.py', run['images'], run['folder'] / file, '--json', tmp_path / 'answers.json')
    answers = json.loads((tmp_path / 'answers.json').read_text())
    hits = [each['classes'][0]['name'] == Path(each['file']).parent.name for each in answers['images']]
    assert 100 * np.mean(hits) == pytest.approx(accuracy)
    assert answers['resized_to'] == '8×8 px (bilinear, antialiased)'


@pytest.mark.parametrize('args, message', [
    (['--cfg-options', 'model.data_preprocessor.resolution=12'], r'takes images of 8×8 px, got 12×12 px'),
    (['--amp'], 'is tested in one process and as it is: leave --amp and --launcher out'),
    (['--out', 'x.pkl'], r'--out ends in .json for --out-item metrics, got x.pkl'),
    (['--out', 'x.pkl', '--out-item', 'pred'], r'--out ends in .json or .npz for --out-item pred, got x.pkl'),
    (['--out-item', 'pred'], '--out-item pred needs a file: --out FILE'),
])
def test_what_the_test_refuses(run, tmp_path, args, message):
    with pytest.raises(SystemExit, match=message):
        tool('test.py', run['config'], run['folder'] / 'student.onnx', '--work-dir', tmp_path / 'test', *args)


def test_another_onnx_file_is_one_line(tmp_path):
    torch.onnx.export(torch.nn.Flatten(), (torch.zeros(2, 3, 8, 8), ), tmp_path / 'other.onnx', dynamo=True, verbose=False)
    with pytest.raises(SystemExit, match=r'other.onnx should take images \(N, H, W, 3\) in uint8 and give probabilities'):
        Image.fromarray(small(1)[0]).save(tmp_path / 'image.png')
        tool('predict.py', tmp_path / 'image.png', tmp_path / 'other.onnx')


@pytest.mark.parametrize('notes, weights, reason', [
    (dict(classes='[' * 100_000), None, 'its metadata are not those'),
    (dict(view='{"image_size": "x"}'), None, 'its metadata are not those'),
    (dict(view='{"large": {"type": "Resize"}}'), None, 'its metadata are not those'),
    (dict(view='{"large": [{}]}'), None, 'its metadata are not those'),
    (dict(view='{"interpolation": "x"}'), None, r'its metadata are not those .*\(interpolation is one of'),
    ({}, np.nan, 'the probabilities that it gives are not finite')])
def test_a_crafted_file_is_one_line(run, tmp_path, notes, weights, reason):
    model = onnx.load(run['folder'] / 'student.onnx')
    for each in model.metadata_props:
        each.value = notes.get(each.key, each.value)
    if weights is not None:
        largest = max(model.graph.initializer, key=lambda each: len(each.raw_data))
        largest.raw_data = np.full(len(largest.raw_data) // 4, weights, np.float32).tobytes()
    onnx.save(model, tmp_path / 'crafted.onnx')
    Image.fromarray(small(1)[0]).save(tmp_path / 'image.png')
    with pytest.raises(SystemExit, match=f'^error: .*crafted.onnx.* {reason}'):
        tool('predict.py', tmp_path / 'image.png', tmp_path / 'crafted.onnx', '--json', tmp_path / 'a.json')


@pytest.mark.parametrize('pipeline', [False, True])
@pytest.mark.parametrize('suffix', ['json', 'npz'])
def test_all_predictions_of_a_test(run, tmp_path, pipeline, suffix):
    cfg = Config.fromfile(run['config'])
    if pipeline:
        cfg.test_dataloader = pipeline_loader(run['images'], training=False)
        cfg.test_evaluator = dict(type='Accuracy', topk=(1, ))
        cfg.model.data_preprocessor.to_rgb = True        # files are read as BGR
    cfg.dump(tmp_path / 'config.py')
    out = tmp_path / f'predictions.{suffix}'
    tool('test.py', tmp_path / 'config.py', run['folder'] / 'run', '--out', out, '--out-item', 'pred',
         '--work-dir', tmp_path / 'test')
    if suffix == 'npz':
        found = dict(np.load(out))
    else:
        written = json.loads(out.read_text())
        found = {key: np.array([row[key] for row in written['predictions']]) for key in written['predictions'][0]}
        found['classes'] = np.array(written['classes'])
    assert found['classes'].tolist() == [f'class{i}' for i in range(CLASSES)]
    assert found['sample_idx'].tolist() == list(range(24)) and found['pred_score'].shape == (24, CLASSES)
    assert np.array_equal(found['pred_label'], found['pred_score'].argmax(1))
    assert 100 * (found['pred_label'] == found['gt_label']).mean() == pytest.approx(run['accuracy'])
    assert ('img_path' in found) == pipeline
    files = sorted(run['images'].rglob('*.png'), key=str if pipeline else lambda file: file.name)
    expected = mmcrrcd.load_student(run['folder'] / 'run').predict(files)
    np.testing.assert_allclose(found['pred_score'], [answer.probabilities for answer in expected], rtol=1e-4, atol=1e-6)
