"""tools/train.py as a user calls it, on a few generated images."""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tools import export_student
from tools import train as train_tool

ROOT = Path(__file__).parents[2]
TEACHER = '''
from mmengine.dataset import DefaultSampler
from mmengine.optim import MultiStepLR, OptimWrapper
from mmengine.config import read_base
from torch.optim import SGD
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead
from mmengine.hooks import CheckpointHook, IterTimerHook, LoggerHook, ParamSchedulerHook
from mmcrrcd.datasets import GlyphArrays, whole_batch
from mmcrrcd.engine import CheckInputHook, CriticWatchHook, EpochSeedHook, FiniteHook, PlainCheckpointHook
from mmcrrcd.evaluation import BatchAccuracy
from mmcrrcd.models import CRRCD, Distiller, PairPreprocessor, ResNetCIFAR

network = dict(type=ImageClassifier, backbone=dict(type=ResNetCIFAR, depth=8), neck=dict(type=GlobalAveragePooling),
               head=dict(type=LinearClsHead, num_classes=40, in_channels=64))
data_preprocessor = dict(type=PairPreprocessor, mean=[127.] * 3, std=[60.] * 3, padding=2)
data = dict(type=GlyphArrays, split='train', num_images=64, seed=0)
train_dataloader = dict(batch_size=16, num_workers=0, dataset=data, sampler=dict(type=DefaultSampler, shuffle=True),
                        collate_fn=dict(type=whole_batch))
val_dataloader = dict(batch_size=32, num_workers=0, dataset=data, sampler=dict(type=DefaultSampler, shuffle=False),
                      collate_fn=dict(type=whole_batch))
val_evaluator = dict(type=BatchAccuracy)
val_cfg = dict()
test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, dict()
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.05, momentum=0.9))
param_scheduler = dict(type=MultiStepLR, by_epoch=True, milestones=[2])
train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=1)
default_scope = 'mmpretrain'
default_hooks = dict(logger=dict(type=LoggerHook, interval=1), checkpoint=dict(type=CheckpointHook, interval=1))
custom_hooks = [dict(type=kind) for kind in
                (CheckInputHook, EpochSeedHook, FiniteHook, CriticWatchHook, PlainCheckpointHook)]
env_cfg = dict(dist_cfg=dict(backend='nccl'))
randomness = dict(seed=5)
model = dict(type=Distiller, student=network, data_preprocessor=data_preprocessor)
'''
STUDENT = TEACHER[:TEACHER.rindex('model = ')] + '''
teacher_config = 'teacher.py'
data_preprocessor.update(resolution=8)
model = dict(type=CRRCD, teacher=network, teacher_checkpoint='work_dirs/teacher', student=network, num_negatives=32,
             data_preprocessor=data_preprocessor)
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'teacher.py').write_text(TEACHER)
    (tmp_path / 'student.py').write_text(STUDENT)
    (tmp_path / 'iterations.py').write_text(TEACHER.replace('by_epoch=True, max_epochs=1', 'by_epoch=False, max_iters=2'))
    return tmp_path


@pytest.fixture
def train(folder, monkeypatch, capsys):
    """The tool in the folder of the configs; returns what it printed."""
    monkeypatch.chdir(folder)

    def call(*args: str) -> str:
        train_tool.main(list(args))
        return capsys.readouterr().out

    return call


@pytest.fixture
def refused(train, capsys):
    """The one line with which the tool ends."""
    def call(*args: str) -> str:
        with pytest.raises(SystemExit) as error:
            train(*args)
        capsys.readouterr()
        assert '\n' not in str(error.value)
        return str(error.value)

    return call


def program(folder: Path, script: str, *args: str) -> subprocess.CompletedProcess:
    """A tool in processes of its own."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    env = os.environ | {'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable}
    how = 'bash' if script.endswith('.sh') else sys.executable
    return subprocess.run([how, str(ROOT / 'tools' / script), *args], cwd=folder, env=env, capture_output=True, text=True,
                          timeout=300)


def scalars(work_dir: Path) -> list[dict]:
    file, = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_missing_teacher_is_named_with_the_command_that_trains_it(folder, refused):
    assert refused('student.py') == ('error: the teacher is missing: no checkpoint at work_dirs/teacher; train it with: '
                                     'python tools/train.py teacher.py  (or add --train-teacher)')
    assert not (folder / 'work_dirs').exists()


@pytest.mark.slow
def test_a_process_of_its_own_says_that_line_and_nothing_else(folder):
    result = program(folder, 'train.py', 'student.py')
    assert result.returncode == 1 and result.stderr.strip() == (
        'error: the teacher is missing: no checkpoint at work_dirs/teacher; train it with: '
        'python tools/train.py teacher.py  (or add --train-teacher)')


@pytest.mark.parametrize('resolution, epochs, how', [('8', 1, []), ('[8,8]', 2, ['--train-teacher'])])
def test_a_network_of_small_images_is_no_teacher(folder, train, refused, resolution, epochs, how):
    """Nor is an unfinished one gone on with: of two epochs the second is lost."""
    train('teacher.py', '--work-dir', 'work_dirs/teacher', '--cfg-options', f'model.data_preprocessor.resolution={resolution}',
          f'train_cfg.max_epochs={epochs}')
    if epochs == 2:
        (folder / 'work_dirs/teacher/last_checkpoint').write_text('work_dirs/teacher/epoch_1.pth')
    assert refused('student.py', *how) == ('error: the training in work_dirs/teacher is of images of 8×8 px, as its checkpoint '
                                           'says, not of a teacher: move it away')


def test_both_trainings_in_one_go_and_resuming(folder, train):
    output = train('student.py', '--train-teacher', '--amp', '--cfg-options', 'train_cfg.max_epochs=2')
    assert (folder / 'work_dirs/teacher/epoch_1.pth').is_file()
    rows = [row for row in scalars(folder / 'work_dirs/student') if 'loss' in row]
    assert {'loss_cls', 'loss_kd', 'loss_rcd', 'rcd_score_positive', 'rcd_score_negative', 'accuracy'} <= set(rows[-1])
    assert rows[-1]['loss_rcd'] > 0
    assert 'eta' in output and 'accuracy/top1' in output
    checkpoint = torch.load(folder / 'work_dirs/student/epoch_2.pth', weights_only=True)
    assert not any(key.startswith('teacher') for key in checkpoint['state_dict'])

    output = train('student.py', '--resume', '--amp', '--cuda-graphs', '--cfg-options', 'train_cfg.max_epochs=3')
    assert 'resumed epoch: 2' in output
    assert ('the learning rate goes on by the schedule of the checkpoint, not by that of the config: end 2 there, 3 here'
            in output)
    assert (folder / 'work_dirs/student/epoch_3.pth').is_file()


def test_a_teacher_that_was_killed_before_its_last_test_is_tested(folder, train):
    train('student.py', '--train-teacher', '--cfg-options', 'train_cfg.max_epochs=1')
    teacher = folder / 'work_dirs/teacher'
    assert not (teacher / '.training.by').exists()
    (teacher / '.training.by').write_text('process 1 on here')           # as a kill leaves it
    output = train('student.py', '--train-teacher', '--overwrite', '--cfg-options', 'train_cfg.max_epochs=1')
    assert 'testing the checkpoint that was resumed from' in output
    assert not (teacher / '.training.by').exists()


def test_settings_of_the_teachers_own_training(folder, train, refused):
    train('student.py', '--train-teacher', 'train_cfg.max_epochs=2', '--cfg-options', 'train_cfg.max_epochs=1')
    assert (folder / 'work_dirs/teacher/epoch_2.pth').is_file()
    assert [file.name for file in (folder / 'work_dirs/student').glob('*.pth')] == ['epoch_1.pth']
    anew = ('student.py', '--overwrite', '--train-teacher')
    assert refused(*anew, 'train_cfg.max_epochs=3') == (
        'error: --train-teacher train_cfg.max_epochs=...: the teacher in work_dirs/teacher is trained already, so its settings '
        'change nothing: leave them out, or move that folder away')
    (folder / 'work_dirs/teacher').rename(folder / 'away')
    assert refused(*anew, 'train_cgf.max_epochs=3').startswith("error: --train-teacher train_cgf.max_epochs: there is no "
                                                               "'train_cgf'; did you mean 'train_cfg'?")
    assert (folder / 'work_dirs/student/epoch_1.pth').is_file()
    assert refused(*anew, '--cfg-options', 'model.teacher_checkpoint=None') == (
        'error: --train-teacher: student.py has no model.teacher_checkpoint, so there is none to train')


@pytest.mark.slow
def test_two_processes_on_a_cpu(folder, monkeypatch):
    """A training, then a test; only the first process speaks, and each ends without a thread of gloo's."""
    (folder / 'sitecustomize.py').write_text('''
import atexit, os
from pathlib import Path
names = lambda: [file.read_text().strip() for file in Path('/proc/self/task').glob('*/comm')]
end = Path(__file__).parent / f'{os.getpid()}.end'
atexit.register(lambda: end.write_text(' '.join(name for name in names() if 'gloo' in name)))
''')
    monkeypatch.setenv('PYTHONPATH', str(folder))

    def threads_at_the_end() -> list[str]:               # of each process, torchrun's own among them
        ends = list(folder.glob('*.end'))
        texts = [end.read_text() for end in ends]
        for end in ends:
            end.unlink()
        return texts

    result = program(folder, 'dist_train.sh', 'student.py', '2', '--train-teacher', '--work-dir', 'out')
    assert result.returncode == 0, result.stderr
    assert (folder / 'work_dirs/teacher/epoch_1.pth').is_file() and (folder / 'out/epoch_1.pth').is_file()
    assert threads_at_the_end() == [''] * 3
    result = program(folder, 'dist_test.sh', 'student.py', 'out', '2', '--out', 'out/metrics.json')
    assert result.returncode == 0, result.stderr
    assert threads_at_the_end() == [''] * 3
    accuracy = json.loads((folder / 'out/metrics.json').read_text())['accuracy/top1']
    assert result.stdout.count(f'accuracy/top1 {accuracy:.2f}') == 1


@pytest.mark.parametrize('options, message', [
    (['no_such.py'], 'there is no config no_such.py'),
    (['teacher.py', '--cfg-options', 'train_dataloader.dataset.num_images=0'], 'the split is empty'),
    (['teacher.py', '--cfg-options', 'model.student.head.num_classes=9'], 'the training data have 40 classes, the student 9'),
    (['teacher.py', '--cfg-options', 'optim_wrapper.optimizer.lr=1e30', 'train_cfg.max_epochs=3'],
     'the loss is nan at iteration'),
    (['iterations.py', '--cuda-graphs'],
     "--cuda-graphs is for training by epochs, and train_cfg of iterations.py is {'by_epoch': False, 'max_iters"),
    (['student.py', '--cfg-options', 'model.teacher_checkpoint=None', 'model.num_negatives=8'],
     'the queue holds num_negatives=8 samples, fewer than the batch of 16'),
    (['student.py', '--cfg-options', 'model.teacher_checkpoint=None', 'model.num_negativ=64'],
     "CRRCD has no setting 'num_negativ'"),
    (['student.py', '--cfg-options', 'model.teacher_checkpoint=None', 'model.num_negatives=many'],
     "model.num_negatives is a whole number or None, got 'many'"),
    (['student.py', '--cfg-options', 'model.teacher_checkpoint=None', 'model.alpha=[0,1]'],
     'weight of kd: expected a number or points'),
    (['teacher.py', '--cfg-options', 'model.student.backbone.deep=8'], "ResNetCIFAR has no setting 'deep'"),
])
def test_bad_input_ends_in_one_line(refused, options, message):
    line = refused(*options)
    assert line.startswith('error: ') and message in line


def test_a_training_is_not_gone_over_without_being_told(train, folder):
    train('teacher.py', '--no-validate', '--cfg-options', 'train_cfg.max_epochs=2')
    work_dir = folder / 'work_dirs/teacher'
    before = {file.name: file.read_bytes() for file in work_dir.glob('*') if file.is_file()}
    assert {'epoch_1.pth', 'epoch_2.pth', 'last_checkpoint'} <= set(before)
    for args, line in (((), r'error: work_dirs/teacher has a training already \(epoch_2.pth\): go on with --resume'),
                       (('--overwrite', '--resume'), 'error: --resume goes on with a training, --overwrite starts it anew'),
                       (('--overwrite', '--cfg-options', 'model.student.head.num_classes=9'), 'error: the training data have')):
        with pytest.raises(SystemExit, match=line):
            train('teacher.py', *args)
    kept = {name: content for name, content in before.items() if name.startswith(('epoch', 'last'))}
    assert kept == {name: (work_dir / name).read_bytes() for name in kept}
    train('teacher.py', '--no-validate', '--overwrite')
    assert [file.name for file in work_dir.glob('*.pth')] == ['epoch_1.pth']
    assert (work_dir / 'last_checkpoint').read_text().endswith('epoch_1.pth')


def export(*args) -> None:
    export_student.main(list(map(str, args)))


def test_an_export_is_neither_of_an_unfinished_training_nor_over_another_without_being_told(train, folder):
    train('teacher.py', '--no-validate', '--cfg-options', 'train_cfg.max_epochs=2')
    work_dir = folder / 'work_dirs/teacher'
    (work_dir / 'epoch_2.pth').unlink()
    (work_dir / 'teacher.py').write_text((work_dir / 'teacher.py').read_text() + f'\nopen({str(folder / "planted")!r}, "w")\n')
    for checkpoint in (work_dir, work_dir / 'epoch_1.pth'):
        with pytest.raises(SystemExit, match='error: .* the training stopped after epoch 1 of 2: .* or add --unfinished'):
            export(checkpoint)
    with pytest.raises(SystemExit, match='teacher.py holds more than names and values, .* name it by --config'):
        export(work_dir, '--unfinished')
    assert not (folder / 'planted').exists() and not (work_dir / 'student').exists()
    export(work_dir, '--unfinished', '--config', 'teacher.py')
    content = (work_dir / 'student' / 'student.pth').read_bytes()
    with pytest.raises(SystemExit, match='error: .*student.py is there already: add --overwrite'):
        export(work_dir, '--unfinished', '--config', 'teacher.py')
    assert (work_dir / 'student' / 'student.pth').read_bytes() == content
    export(work_dir, '--unfinished', '--config', 'teacher.py', '--overwrite')


def test_control_characters_in_names_do_not_reach_the_terminal(refused):
    assert refused('a\x1b[2J\n.py') == 'error: there is no config a\\x1b[2J\\n.py'


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='asked of Linux')
def test_a_killed_launcher_takes_all_its_processes_with_it(folder):
    """Two ranks with two loader workers each; torchrun is killed, so that it cannot end them."""
    env = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable}
    args = ['teacher.py', '2', '--cfg-options', 'train_cfg.max_epochs=500', 'train_dataloader.num_workers=2']
    launcher = subprocess.Popen(['bash', str(ROOT / 'tools' / 'dist_train.sh'), *args], cwd=folder, env=env,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def processes() -> list[str]:
        return [file.parent.name for file in Path('/proc').glob('[0-9]*/cwd')
                if os.path.realpath(file) == str(folder.resolve())]

    def wait_for(done, seconds: float) -> bool:
        deadline = time.time() + seconds
        while not done() and time.time() < deadline:
            time.sleep(0.1)
        return done()

    assert wait_for(lambda: (folder / 'work_dirs/teacher/epoch_1.pth').exists(), 120)
    assert len(processes()) >= 3
    launcher.kill()
    launcher.wait()
    assert wait_for(lambda: not processes(), 10), processes()
