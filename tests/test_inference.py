"""``mmcrrcd.load_student``: students of every origin say the same, and a folder from elsewhere runs nothing."""
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tiny import CLASSES, STUDENT, config, crrcd, pipeline_loader, train, write_folder, write_teacher

import mmcrrcd
from mmcrrcd.config import read_text, read_values
from mmcrrcd.datasets import StudentView, downsample
from mmcrrcd.deployment import export_student
from mmcrrcd.engine import CheckInputHook
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.classifier import load_classifier

NAMES = tuple(f'class{i}' for i in range(CLASSES))


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory):
    """Of a student that saw 8×8 px, with its exports."""
    folder = tmp_path_factory.mktemp('run')
    train(config(folder / 'run', crrcd(write_teacher(folder / 'teacher.pth')), epochs=1))
    pytest.importorskip('onnxscript')
    path = folder / 'run'
    export_student(Config.fromfile(next(path.glob('*.py'))), path / 'epoch_1.pth', path / 'student', onnx=path / 'student.onnx')
    return path


def pixels(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize('origin', ['.', 'epoch_1.pth', 'student', 'student/student.pth', 'student.onnx'])
def test_students_of_every_origin_say_the_same(work_dir, origin):
    student = mmcrrcd.load_student(work_dir / origin)
    images = [pixels(1), pixels(2, 16, 16), pixels(3, 11, 7)]
    answers = student.predict(images, batch_size=2)
    classifier = load_classifier(str(next(work_dir.glob('*.py'))), str(work_dir))
    for answer, image in zip(answers, images):
        low = downsample(torch.from_numpy(image).permute(2, 0, 1)[None], 8)
        expected = classifier.ask(low).logits.softmax(1)[0].numpy()
        np.testing.assert_allclose(answer.probabilities, expected, rtol=1e-4, atol=1e-6)
        assert answer.label == expected.argmax() and answer.name == NAMES[answer.label] and answer.file is None
        assert answer.probability == answer.probabilities[answer.label] and answer.pixels == (8, 8)
    assert student.classes == NAMES


def test_images_of_every_kind(work_dir, tmp_path):
    student, image = mmcrrcd.load_student(work_dir), pixels(1)
    (tmp_path / 'below').mkdir()
    Image.fromarray(image).save(tmp_path / 'below' / 'image.png')
    file = tmp_path / 'below' / 'image.png'
    gray = image[..., 0]
    answers = student.predict([file, str(tmp_path), Image.fromarray(image), image, np.stack([image, image])])
    assert [answer.file for answer in answers] == [str(file), str(file), None, None, None, None]
    assert len({answer.probabilities.tobytes() for answer in answers}) == 1
    of_gray = student.predict([gray, gray[..., None], np.dstack([gray] * 3)])
    assert len({answer.probabilities.tobytes() for answer in of_gray}) == 1
    assert len(student.predict(image)) == 1 and student.predict([]) == []


@pytest.mark.parametrize('images, message', [
    (np.zeros((8, 8, 3), np.float32), r'image 0 cannot be read as an image \(an array is an image .* got \(8, 8, 3\) float32'),
    (np.zeros((8, 8, 4), np.uint8), 'an array is an image'),
    (np.zeros((0, 8, 3), np.uint8), 'an array is an image'),
    (7, 'an image is a path, a PIL image or an array, got a int'),
])
def test_what_is_no_image_is_one_line(work_dir, images, message):
    with pytest.raises(InputError, match=message):
        mmcrrcd.load_student(work_dir).predict(images)


def test_a_damaged_file_is_refused_or_listed(work_dir, tmp_path):
    (tmp_path / 'bad.png').write_text('no image')
    Image.fromarray(pixels(1)).save(tmp_path / 'good.png')
    student, unreadable = mmcrrcd.load_student(work_dir), []
    with pytest.raises(InputError, match='bad.png cannot be read as an image'):
        student.predict(tmp_path)
    assert [answer.file for answer in student.predict(tmp_path, unreadable=unreadable)] == [str(tmp_path / 'good.png')]
    assert [each['file'] for each in unreadable] == [str(tmp_path / 'bad.png')]


def test_large_images_go_through_the_test_of_the_training_and_small_ones_do_not():
    steps = [dict(type='ResizeEdge', scale=72), dict(type='CenterCrop', crop_size=64)]
    view = StudentView(resolution=16, image_size=64, large=steps)
    small, photo = pixels(1, 16, 16), pixels(2, 90, 150)
    assert np.array_equal(view(dict(img=small))['img'], small)
    assert np.array_equal(view(dict(img=pixels(3, 20, 16)))['img'], StudentView(16, 64)(dict(img=pixels(3, 20, 16)))['img'])
    results = dict(img=photo, img_shape=photo.shape[:2])
    from mmpretrain.registry import TRANSFORMS
    for step in steps:
        results = TRANSFORMS.build(step)(results)
    assert results['img'].shape == (64, 64, 3)
    expected = downsample(torch.from_numpy(results['img']).permute(2, 0, 1)[None], 16)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(view(dict(img=photo))['img'], expected)


def test_a_view_upsamples_to_the_training_s_size_whatever_the_image_s():
    view = StudentView(resolution=(8, 6), image_size=(32, 24), upsample=True)
    for image in (pixels(1, 8, 6), pixels(1, 32, 24), pixels(1, 50, 20)):
        low = downsample(torch.from_numpy(image).permute(2, 0, 1)[None], (8, 6))
        expected = downsample(low, (32, 24))[0].permute(1, 2, 0).numpy()
        assert np.array_equal(view(dict(img=image))['img'], expected)
    assert str(view) == '8×6 px, then to 32×24 px (bilinear, antialiased)' and view.seen == (32, 24)


def test_gray_images(work_dir):
    """OpenCV's gray of a BGR image."""
    import cv2
    image = pixels(1)
    seen = StudentView(8, 16, gray=True)(dict(img=image))['img']
    assert seen.shape == (8, 8, 1)
    assert np.abs(seen[..., 0].astype(int) - cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)).max() <= 1
    assert np.array_equal(StudentView(8, 16, gray=True)(dict(img=image[..., 0]))['img'][..., 0], image[..., 0])


def test_the_size_of_the_training_s_images_is_kept_in_its_checkpoints(tmp_path):
    """By CheckInputHook: rectangular images, of which the config says nothing, upsampled."""
    folder = write_folder(tmp_path / 'images', seed=0)
    for file in folder.rglob('*.png'):
        Image.open(file).resize((12, 20)).save(file)
    model = crrcd(write_teacher(tmp_path / 'teacher.pth'), resolution=(10, 6))
    model['data_preprocessor'] |= dict(upsample=True, to_rgb=True)
    model['input_size'] = (20, 12)
    loader = pipeline_loader(folder, training=False)
    loader['dataset']['pipeline'] = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    accuracy = dict(type='Accuracy', topk=(1, ))
    cfg = config(tmp_path / 'run', model, epochs=1, train_dataloader=loader, val_dataloader=loader, test_dataloader=loader,
                 val_evaluator=accuracy, test_evaluator=accuracy)
    train(cfg, CheckInputHook())
    path = tmp_path / 'run'
    student = mmcrrcd.load_student(path)
    assert str(student) == '10×6 px, then to 20×12 px (bilinear, antialiased)'
    export_student(Config.fromfile(next(path.glob('*.py'))), path / 'epoch_1.pth', path / 'student', onnx=path / 's.onnx')
    images = [pixels(1, 10, 6), pixels(2, 20, 12), pixels(3, 9, 9)]
    expected = [answer.probabilities for answer in student.predict(images)]
    exported, onnx = mmcrrcd.load_student(path / 'student'), mmcrrcd.load_student(path / 's.onnx')
    assert str(exported) == str(student) and onnx.views[0].resolution == (10, 6)
    for other in (exported, onnx):
        for answer, wanted in zip(other.predict(images), expected):
            np.testing.assert_allclose(answer.probabilities, wanted, atol=1e-5)


@pytest.mark.parametrize('change, message', [
    ('import os\nos.system("touch {}/ran")\n', 'holds more than names and values'),
    ('x = __import__("os").system("touch {}/ran")\n', 'holds more than names and values'),
    ('_base_ = "{}/other.py"\n', 'holds more than names and values'),
    ('model["student"]["type"] = "subprocess.Popen"\n', 'holds more than names and values'),
])
def test_a_config_that_is_a_program_is_not_run(work_dir, tmp_path, change, message):
    folder = tmp_path / 'foreign'
    shutil.copytree(work_dir, folder, ignore=shutil.ignore_patterns('student*'))
    (tmp_path / 'other.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")')
    own = next(folder.glob('*.py'))
    own.write_text(own.read_text() + change.format(tmp_path))
    with pytest.raises(InputError, match=message):
        mmcrrcd.load_student(folder)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('change', [
    dict(student=dict(type='subprocess.Popen', args=['touch', 'ran'])),
    dict(student=dict(STUDENT, neck=dict(type='os.system', command='touch ran'))),
    dict(student=dict(STUDENT, neck=dict(type='mmengine.load', file='ran'))),
    dict(student=dict(STUDENT, neck=dict(type='ran'))),
    dict(student=dict(STUDENT, neck=dict(type='torch.hub.load', repo_or_dir='x/y', model='z'))),
    dict(student=dict(STUDENT, neck=dict(type='TimmClassifier', model_name='hf-hub:x/y'))),
    dict(student=dict(STUDENT, backbone=dict(type='TIMMBackbone', model_name='hf-hub:x/y', pretrained=True))),
    dict(student=dict(type='mmpretrain.CLIPGenerator', tokenizer_path='http://127.0.0.1:9/a.pth')),       # loads it when built
    dict(student=dict(type='torch.jit.ScriptModule')),
])
def test_from_a_folder_only_networks_of_known_libraries_are_built(work_dir, tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'ran.py').write_text('raise SystemExit("it ran")')
    folder = tmp_path / 'foreign'
    shutil.copytree(work_dir, folder, ignore=shutil.ignore_patterns('student*'))
    cfg = Config.fromfile(next(folder.glob('*.py')))
    cfg.model.update(change)
    cfg.dump(next(folder.glob('*.py')))
    with pytest.raises(InputError, match='is no network of mmcrrcd, mmpretrain, .* if you trust it, name it as the config'):
        mmcrrcd.load_student(folder)
    assert not (tmp_path / 'ran').exists()


def test_from_a_folder_only_resizes_and_crops_are_taken(work_dir, tmp_path):
    folder = tmp_path / 'foreign'
    shutil.copytree(work_dir / 'student', folder)
    cfg = Config.fromfile(folder / 'student.py')
    cfg.test_dataloader.dataset.pipeline[1]['large'] = [dict(type='CenterCrop', crop_size=16, pad_cfg=dict(type='os.Evil'))]
    cfg.dump(folder / 'student.py')
    with pytest.raises(InputError, match="the transform 'os.Evil' is none of CenterCrop"):
        mmcrrcd.load_student(folder)


def test_a_config_that_is_named_is_run(work_dir, tmp_path):
    text = next(work_dir.glob('*.py')).read_text()
    (tmp_path / 'config.py').write_text(f'import sys\nmark = len("run")\ndel sys\n{text}')
    assert mmcrrcd.load_student(work_dir, tmp_path / 'config.py').classes == NAMES
    with pytest.raises(InputError, match='holds more than names and values'):
        read_values(read_text(tmp_path / 'config.py'), 'config.py')


def test_a_plug_in_of_the_training_is_not_needed_to_ask_its_student(work_dir, tmp_path):
    shutil.copytree(work_dir, tmp_path / 'run', ignore=shutil.ignore_patterns('student*'))
    own = next((tmp_path / 'run').glob('*.py'))
    plug_in = "custom_imports = dict(imports=['somebodys'])\ncustom_hooks = [dict(type='somebodys.Hook')]\n"
    own.write_text(f'{own.read_text()}\n{plug_in}')
    assert mmcrrcd.load_student(tmp_path / 'run').classes == NAMES


def test_a_transform_of_a_bare_name_is_not_imported(work_dir, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'ran.py').write_text('raise SystemExit("it ran")')
    shutil.copytree(work_dir, tmp_path / 'run', ignore=shutil.ignore_patterns('student*'))
    own = next((tmp_path / 'run').glob('*.py'))
    cfg = Config.fromfile(own)
    cfg.test_dataloader.dataset = dict(type='CustomDataset', pipeline=[dict(type='ran')])
    cfg.dump(own)
    with pytest.raises(InputError, match="the transform 'ran' is none of CenterCrop"):
        mmcrrcd.load_student(tmp_path / 'run')


def test_images_are_read_by_the_one_reader(work_dir, tmp_path):
    """Some formats and no others, whatever the name; the same from files and from Pillow."""
    student, unreadable = mmcrrcd.load_student(work_dir), []
    image = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) << 10)
    image.save(tmp_path / 'deep.png')
    Image.fromarray(pixels(1)).save(tmp_path / 'starts_a_program.png', format='EPS')
    answer, = student.predict(tmp_path, unreadable=unreadable)
    np.testing.assert_array_equal(answer.probabilities, student.predict(image)[0].probabilities)
    refused, = unreadable
    assert Path(refused['file']).name == 'starts_a_program.png' and refused['reason'].startswith('it is none of BMP, GIF')


def test_plain_configs_are_read_as_mmengine_reads_them(work_dir):
    path = next(work_dir.glob('*.py'))
    assert read_values(read_text(path), path).to_dict() == Config.fromfile(path).to_dict()


@pytest.mark.parametrize('path, options, error, message', [
    ('nothing', {}, FileNotFoundError, 'no checkpoint at'),
    ('nothing.onnx', {}, InputError, 'there is no ONNX file at'),
    ('student.onnx', dict(resolution=12), InputError, 'has its resolution and its settings in it'),
    ('.', dict(config='nothing.py'), FileNotFoundError, 'there is no config nothing.py'),
])
def test_what_is_no_student_is_one_line(work_dir, path, options, error, message):
    with pytest.raises(error, match=message):
        mmcrrcd.load_student(work_dir / path, **options)


def test_the_public_names():
    assert all(getattr(mmcrrcd, name) is not None for name in mmcrrcd.__all__) and set(mmcrrcd.__all__) <= set(dir(mmcrrcd))
    with pytest.raises(AttributeError, match="module 'mmcrrcd' has no attribute 'nothing'"):
        mmcrrcd.nothing  # noqa: B018
    assert issubclass(mmcrrcd.CRRCD, mmcrrcd.Distiller)


def test_importing_the_package_is_cheap():
    code = "import sys, mmcrrcd; print(*sorted({'torch', 'mmengine', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == ''
