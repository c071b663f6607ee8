"""What the tools say of an error that the input caused."""
import ast
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader

from mmcrrcd.command_line import one_line_errors
from mmcrrcd.engine.runner import Runner
from mmcrrcd.errors import InputError
from mmcrrcd.files import inside, whole_file, write_whole
from mmcrrcd.interrupt import CODE, LINE
from mmcrrcd.torch_file import save_whole
from mmcrrcd.visualization.picture import save_picture
from tiny import config, crrcd, pipeline_loader, train, write_folder, write_teacher

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.mark.parametrize('workers', [0, 1])
def test_an_image_that_mmpretrain_cannot_read_is_named(tmp_path, workers):
    files = write_folder(tmp_path / 'images', seed=0)
    damaged = files / 'class1' / '005.png'
    damaged.write_bytes(damaged.read_bytes()[:30])
    loader = pipeline_loader(files, training=True, workers=workers)
    cfg = config(tmp_path / 'run', crrcd(write_teacher(tmp_path / 'teacher.pth')), epochs=1, train_dataloader=loader)
    with pytest.raises(SystemExit) as error, one_line_errors():
        train(cfg)
    assert str(error.value) == f'error: {damaged} cannot be read as an image (it is damaged or no image)'


def test_other_failed_assertions_keep_their_traceback():
    with pytest.raises(AssertionError, match='a bug'), one_line_errors():
        raise AssertionError('a bug')


@pytest.mark.parametrize('workers', [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize('make, reason', [
    (lambda file: file.write_bytes(b''), 'cannot be read as an image (it is empty)'),
    (lambda file: None, 'is missing'),
    (lambda file: os.mkfifo(file), 'cannot be read as an image (it is no regular file)'),
    (lambda file: file.mkdir(), 'cannot be read as an image (it is no regular file)')])
def test_an_image_that_is_met_while_training_is_named(tmp_path, workers, make, reason):
    """Nor is a pipe waited for."""
    folder = write_folder(tmp_path / 'images', seed=0)
    dataset = Runner.build_dataloader(pipeline_loader(folder, training=True, workers=workers)).dataset
    file = Path(dataset.get_data_info(5)['img_path'])
    file.unlink()
    make(file)
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=list)
    with pytest.raises(SystemExit) as error, one_line_errors():
        list(loader)
    assert str(error.value).startswith('error: ') and str(error.value).endswith(f'{file} {reason}')


@pytest.mark.parametrize('error, said', [
    (OSError(errno.ENOSPC, 'No space left on device', 'run/3.pth'), 'run/3.pth cannot be read or written: No space'),
    (OSError(errno.ELOOP, 'Too many levels of symbolic links', 'a.png'), 'a.png cannot be read or written: Too many levels'),
    (OSError(errno.EROFS, 'Read-only file system'), 'a file, perhaps one in '),
    (PermissionError(errno.EACCES, 'Permission denied', 'run'), 'run cannot be read or written: Permission denied'),
    (NotADirectoryError(errno.ENOTDIR, 'Not a directory', 'file/run'), 'file/run cannot be read or written: Not a directory'),
    (RuntimeError('DataLoader timed out after 600 seconds'), 'a loader worker has not answered for 600 s (timeout of the'),
    (RuntimeError('DataLoader worker (pid(s) 12, 13) exited unexpectedly'), 'loader worker 12, 13 ended unexpectedly'),
    (RuntimeError('DataLoader worker (pid 12) is killed by signal: Killed. '), 'loader worker 12 was killed (Killed)'),
    (RuntimeError('[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 600000ms for recv operation to complete'),
     'another process has ended, or has not answered in the time of env_cfg.dist_cfg.timeout'),
])
def test_what_the_machine_did_is_one_line_that_says_how_to_go_on(error, said):
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise error
    line = str(caught.value)
    assert line.startswith(f'error: {said}') and '\n' not in line and '--resume goes on' in line


def test_other_runtime_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match='a bug'), one_line_errors():
        raise RuntimeError('a bug: 3 of 4 timed')


def test_of_several_processes_one_leaves_the_line_for_the_end(tmp_path, monkeypatch):
    """torchrun has many words of its own; tools/dist_train.sh says it after them."""
    file = tmp_path / 'line'
    monkeypatch.setenv('MMCRRCD_ERROR_FILE', str(file))
    for line in ('the first', 'the second'):
        with pytest.raises(SystemExit) as caught, one_line_errors():
            raise InputError(line)
        assert caught.value.code == 1
    assert file.read_text() == 'error: the first\n'


def test_a_full_disk_behind_stdout_is_one_line(tmp_path):
    code = ('from mmcrrcd.command_line import one_line_errors\n'
            'with one_line_errors():\n    print("an answer")')
    with open('/dev/full', 'w') as full:
        done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], stdout=full, stderr=subprocess.PIPE, text=True,
                              env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and 'No space left on device' in done.stderr


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(InputError, match='pipe cannot be written: it is no regular file'), whole_file(tmp_path / 'pipe'):
        pass
    write_whole('/dev/null', 'text')                     # a program asks for its answers there
    assert not Path('/dev/null').is_file()


@pytest.mark.parametrize('name', ['/etc/passwd', '../other/a.png', 'a/../../b.png'])
def test_a_list_cannot_name_what_is_outside_its_folder(tmp_path, name):
    with pytest.raises(InputError, match='which is not in'):
        inside(tmp_path, name, 'pairs.txt')
    assert inside(tmp_path, 'a/b.png', 'pairs.txt') == tmp_path / 'a/b.png'


def test_ctrl_c_while_a_tool_imports_is_one_line():
    code = 'import mmcrrcd.interrupt; raise KeyboardInterrupt'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.returncode in (-signal.SIGINT, CODE) and done.stderr == LINE + '\n'
    half_made = """import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)         # as in a shell's foreground
import mmcrrcd.interrupt
class Half:
    def __init__(self):
        os.kill(os.getpid(), signal.SIGINT)
        self.whole = True
    def __del__(self):
        self.whole
Half()"""
    done = subprocess.run([sys.executable, '-c', half_made], capture_output=True, text=True,
                          env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.stderr == LINE + '\n'
    for tool in (ROOT / 'tools').glob('*.py'):
        first = next(line for line in tool.read_text().split('"""\n', 1)[1].splitlines() if line.startswith(('import', 'from')))
        assert first.startswith('import mmcrrcd.interrupt'), tool


def test_all_that_a_tool_does_is_within_one_line_errors():
    """Also what it writes and prints at its end: there a disk may be full, and nobody read any more."""
    found = 0
    for tool in (ROOT / 'tools').glob('*.py'):
        for main in (part for part in ast.parse(tool.read_text()).body if getattr(part, 'name', None) == 'main'):
            found += 1
            last = main.body[-1]
            assert isinstance(last, ast.With) and ast.unparse(last.items[0]) == 'one_line_errors()', tool
    assert found > 10


@pytest.mark.parametrize('save', [
    lambda file: save_whole(dict(weight=torch.zeros(1000)), file),
    lambda file: save_picture(Figure(), file),
    lambda file: write_whole(file, 'text')], ids=['weights', 'picture', 'text'])
def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path, monkeypatch, save):
    file = tmp_path / 'file.png'
    file.write_text('old')
    monkeypatch.setattr('mmcrrcd.files.os.fsync', lambda handle: os.write(os.open('/dev/full', os.O_WRONLY), b'x'))
    with pytest.raises(SystemExit, match=rf'^error: {file} cannot be read or written: No space left'), one_line_errors():
        save(file)
    assert file.read_text() == 'old' and list(tmp_path.iterdir()) == [file]
    (tmp_path / 'full.png').symlink_to('/dev/full')
    with pytest.raises(SystemExit, match=rf'^error: {tmp_path}/full.png cannot be read or written: No space left'):
        with one_line_errors():
            save(tmp_path / 'full.png')
    assert not Path('/dev/full').is_file()


def test_two_processes_that_write_the_same_file_at_once_do_not_disturb_each_other(tmp_path):
    """Neither renames what the other has half written, also where one of them is killed then."""
    file = tmp_path / 'answers.json'
    with whole_file(file) as ours:
        ours.write(b'ours, half')
        ours.flush()
        child = os.fork()
        if child == 0:
            with whole_file(file) as theirs:
                theirs.write(b'theirs, half')
                theirs.flush()
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        assert not file.exists() and len(list(tmp_path.iterdir())) == 2
        child = os.fork()
        if child == 0:
            write_whole(file, 'theirs, whole')
            os._exit(0)
        os.waitpid(child, 0)
        assert file.read_text() == 'theirs, whole' and len(list(tmp_path.iterdir())) == 2        # the killed one's has gone
        ours.write(b' and whole')
    assert file.read_text() == 'ours, half and whole' and list(tmp_path.iterdir()) == [file]


def test_ctrl_c_that_a_library_turns_into_another_error_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended, one_line_errors():
        try:
            raise KeyboardInterrupt
        except BaseException:
            raise SyntaxError('Failed to format the config file')        # noqa: B904
    assert ended.value.code == CODE and capsys.readouterr().err == LINE + '\n'
