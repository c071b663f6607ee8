"""tools/cache_teacher.py, and tools/train.py that reads what it leaves."""
import shutil

import pytest
import torch
from tiny import config, crrcd, write_teacher

from mmcrrcd.checkpoint import find_checkpoint
from tools import cache_teacher, train


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = crrcd(write_teacher(tmp_path / 'teacher.pth'))
    config(tmp_path / 'unused', model, epochs=1).dump(tmp_path / 'student.py')
    return tmp_path


def weights(work_dir) -> dict:
    return torch.load(find_checkpoint(work_dir), weights_only=False)['state_dict']


def test_answers_are_computed_once_and_read_by_a_training(here, capsys):
    cache_teacher.main(['student.py', '--views', '3'])
    said = capsys.readouterr().out
    assert 'views: 3' in said and 'MB' in said
    folder, = (here / 'work_dirs' / 'teacher_cache').glob('*/manifest.json')
    date = folder.stat().st_mtime_ns
    train.main(['student.py', '--cache-teacher', '3', '--work-dir', 'one'])
    assert folder.stat().st_mtime_ns == date and len(list((here / 'work_dirs' / 'teacher_cache').glob('*/manifest.json'))) == 1
    assert not any(key.startswith('teacher') for key in weights('one'))


def test_a_folder_is_a_teacher_where_the_network_is_not(here):
    cache_teacher.main(['student.py', '--views', '2', '--folder', 'answers'])
    train.main(['student.py', '--work-dir', 'with', '--cfg-options', 'model.teacher_cache.folder=answers'])
    (here / 'teacher.pth').unlink()
    shutil.move('answers', 'elsewhere')
    train.main(['student.py', '--work-dir', 'without', '--cfg-options', 'model.teacher_cache.folder=elsewhere'])
    torch.testing.assert_close(weights('without'), weights('with'), rtol=0, atol=0)


@pytest.mark.parametrize('where', ['data_preprocessor', 'student'])
def test_mixtures_have_no_answers(here, where):
    model = crrcd(here / 'teacher.pth', sampling='unsupervised')
    name = 'batch_augments' if where == 'data_preprocessor' else 'train_cfg'
    model[where] = model[where] | {name: dict(augments=[dict(type='Mixup', alpha=0.8)])}
    config(here / 'unused', model, epochs=1).dump('mixed.py')
    with pytest.raises(SystemExit, match='batch_augments mix images, to which teacher_cache has no answers'):
        train.main(['mixed.py', '--cache-teacher', '2', '--work-dir', 'mixed'])
    assert not list((here / 'work_dirs').glob('**/manifest.json'))


@pytest.mark.parametrize('words, said', [
    (['nothing.py'], 'there is no config nothing.py'),
    (['student.py', '--views', '0'], 'views'),
    (['student.py', '--cfg-options', 'model.teacher_checkpoint=gone.pth'], 'weights are missing'),
])
def test_wrong_words_are_one_line(here, words, said):
    with pytest.raises(SystemExit) as error:
        cache_teacher.main(words)
    assert said in str(error.value) and '\n' not in str(error.value)
