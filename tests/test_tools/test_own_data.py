"""One command on one's own images: from a folder to a student that says the names of its classes."""
from pathlib import Path

import pytest

from mmcrrcd import load_student
from mmcrrcd.command_line import merge_options
from mmcrrcd.config import nested, read_config
from mmcrrcd.errors import InputError
from test_models.test_teachers.test_onnx_network import face, write_onnx
from tiny import write_folder
from tools import cache_teacher, train
from tools import test as test_tool

ROOT = Path(__file__).parents[2]
CUSTOM = sorted(path.relative_to(ROOT / 'configs') for path in (ROOT / 'configs' / 'custom').glob('*.py'))
TEACHER = """
_base_ = 'mmcrrcd::custom/teacher_64px.py'
train_dataloader = dict(batch_size=8, dataset=dict(image_size=16))
val_dataloader = dict(dataset=dict(image_size=16))
model = dict(student=dict(backbone=dict(stem_channels=8, base_channels=8, strides=(1, 2, 2, 2)), head=dict(in_channels=64)))
train_cfg = dict(max_epochs=1)
"""
STUDENT = """
from mmengine.config import read_base

with read_base():
    from mmcrrcd.configs.custom.student_8px import *

train_dataloader.update(batch_size=8)
train_dataloader.dataset.update(image_size=16)
val_dataloader.dataset.update(image_size=16)
test_dataloader.dataset.update(image_size=16)
teacher_config = 'teacher.py'
small = dict(stem_channels=8, base_channels=8, strides=(1, 2, 2, 2))
for network in (model.teacher, model.student):
    network.head.update(in_channels=64)
model.teacher.backbone.update(small)
model.student.update(backbone=dict(model.teacher.backbone, strides=(1, 1, 2, 2)))
model.update(num_negatives=16, input_size=16)
train_cfg.update(max_epochs=1)
del network, small
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder outside the clone, with two configs and images in it."""
    monkeypatch.chdir(tmp_path)
    Path('teacher.py').write_text(TEACHER)
    Path('student.py').write_text(STUDENT)
    write_folder(tmp_path / 'animals', 0)
    return tmp_path


def test_from_a_folder_to_a_student_outside_the_clone(project, capfd):
    """Both forms of configs; the classes of the data in teacher, student and predictions; from the network and from a cache."""
    train.main(['student.py', '--train-teacher', '--cfg-options', 'data_root=animals'])
    said = capfd.readouterr()
    assert 'of the 4 validation images, as this training shows them to it' in said.out + said.err
    assert 'rcd: its queue of 16 negatives is full after 2 iterations' in said.out + said.err
    work_dir = project / 'work_dirs' / 'animals'
    assert (work_dir / 'teacher_64px' / 'last_checkpoint').is_file()
    student = load_student(work_dir / 'student')
    assert student.classes == ('class0', 'class1', 'class2', 'class3')
    small, large = student.predict([next((project / 'animals').rglob('*.png'))] * 2)
    assert small.name in student.classes and small.pixels == (8, 8) and large.label == small.label

    options = ['--cfg-options', 'data_root=animals']
    cache_teacher.main(['student.py', '--views', '2', '--folder', 'answers', *options])
    train.main(['student.py', '--cache-teacher', '2', '--work-dir', 'cached', *options, 'model.teacher_cache.folder=answers'])
    said = capfd.readouterr()
    assert 'of the 4 validation images' in said.out + said.err
    progress, = (line for line in said.err.splitlines() if line.startswith("The teacher's answers, 2 views"))
    assert '100%' in progress
    test_tool.main(['student.py', str(work_dir / 'student'), *options])
    assert 'accuracy/top1' in capfd.readouterr().out


def test_without_labels_a_student_learns_the_embedding_of_an_onnx_file(project, capfd):
    write_onnx(face(), project / 'embedding.onnx')
    Path('free.py').write_text("""
_base_ = 'mmcrrcd::custom/student_16px_label_free.py'
train_dataloader = dict(batch_size=8, dataset=dict(image_size=32))
model = dict(input_size=32, num_negatives=16, teacher=dict(input_size=32))
train_cfg = dict(max_epochs=1)
""")
    train.main(['free.py', '--cfg-options', 'data_root=animals'])
    said = capfd.readouterr().out
    assert 'loss_cosine' in said and 'accuracy' not in said.split('Epoch(train)')[1] and 'the teacher knows' not in said
    embedding = load_student('work_dirs/animals/free').embed('animals')
    assert embedding.shape == (24, 1024) and embedding.std() > 0


@pytest.mark.parametrize('path', CUSTOM, ids=str)
def test_every_config_takes_its_classes_from_the_data(project, path):
    assert len((ROOT / 'configs' / path).read_text().splitlines()) <= 25
    cfg = read_config(f'mmcrrcd::{path}')
    merge_options(cfg, dict(data_root='animals'))
    numbers = [part['num_classes'] for part in nested(cfg.model.to_dict()) if 'num_classes' in part]
    assert numbers == ([1] if 'label_free' in path.stem else [4] * len(numbers)) and numbers
    loaders = [cfg[name] for name in ('train_dataloader', 'val_dataloader', 'test_dataloader') if cfg.get(name)]
    assert all(loader.dataset.data_root == 'animals' for loader in loaders)
    assert '{data}' not in (cfg.model.get('teacher_checkpoint') or '')


@pytest.mark.parametrize('options, message', [
    (dict(data_root='nowhere'), 'there is no folder nowhere: data_root names that of your images'),
    (dict(data_rot='animals'), "there is no 'data_rot'; did you mean 'data_root'")])
def test_wrong_data_are_one_line(project, options, message):
    with pytest.raises((InputError, FileNotFoundError), match=message):
        merge_options(read_config('mmcrrcd::custom/student_16px.py'), options)


def test_a_config_without_a_data_root_says_where_to_set_it(project):
    with pytest.raises(InputError, match='has no data_root; name that of its data sets'):
        merge_options(read_config('mmcrrcd::demo/kd.py'), dict(data_root='animals'))


def test_a_config_that_is_not_there_is_one_line(project):
    with pytest.raises(FileNotFoundError, match='no config mmcrrcd::custom/student_7px.py: .* has none of that name'):
        read_config('mmcrrcd::custom/student_7px.py')
    Path('text.py').write_text("_base_ = 'mmcrrcd::custom/student_7px.py'")
    with pytest.raises((InputError, FileNotFoundError), match='no config mmcrrcd::custom/student_7px.py'):
        read_config('text.py')
