"""Kills: of every kind of work that writes files, at every write and at moments drawn by a seed; then it is begun again.

Afterwards all has to be as if it had never been killed: the same files with the same weights, states and scores.
"""
import errno
import hashlib
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config

import tiny
from mmcrrcd.datasets import FaceFolder
from mmcrrcd.engine.runner import Runner
from tools import cache_teacher, compare, export_student
from tools import test as test_tool
from tools import train as train_tool

from .child import new_folder, run

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {'os.remove', 'os.rename', 'os.mkdir', 'os.rmdir', 'os.truncate', 'os.link', 'os.symlink'}
TIMESTAMP = re.compile(r'^\d{8}_\d{6}$')


class Events:
    """Counts the moments at which files change (``'file'``), or the hooks of a Runner (``'hook'``); at one of them something
    happens: ``'kill'``; ``'torn'``: of the file about to be synced only a part is on the disk, then kill; ``'full'``: from then
    on the disk has no room; ``'interrupt'``: Ctrl-C.
    """

    def __init__(self, kind: str, stop: int | None = None, act: str = 'kill', share: float = 0.5):
        self.kind, self.stop, self.act, self.share, self.count = kind, stop, act, share, 0

    def __enter__(self):
        if self.kind == 'hook':
            call = Runner.call_hook

            def called(runner, name, **kwargs):
                self.happens(None)
                return call(runner, name, **kwargs)

            Runner.call_hook = called
            return self
        sys.addaudithook(self.audit)                     # stays, as this process ends soon
        for name in ('fsync', 'write', 'pwrite'):
            setattr(os, name, self.counted(getattr(os, name), name))
        return self

    def __exit__(self, *_):
        self.stop, self.kind = None, None                # what the child does at its end does not count

    def counted(self, function: Callable, name: str) -> Callable:
        def called(handle, *args):
            self.happens(handle if name == 'fsync' else None)
            return function(handle, *args)

        return called

    def audit(self, event: str, args: tuple) -> None:
        if event == 'open' and isinstance(args[2], int) and args[2] & WRITING and args[0] != '/dev/null' or event in CHANGES:
            self.happens(None)

    def happens(self, handle: int | None) -> None:
        if self.kind is None:
            return
        self.count += 1
        if self.stop is None or self.count < self.stop or self.act != 'full' and self.count > self.stop:
            return
        if self.act == 'full':
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.act == 'interrupt':
            os.kill(os.getpid(), signal.SIGINT)
            return
        if self.act == 'torn' and handle is not None and os.path.isfile(f'/proc/self/fd/{handle}'):
            os.ftruncate(handle, int(self.share * os.fstat(handle).st_size))
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Work:
    """Something that writes files.

    ``prepare`` makes the folder that it starts in, ``start`` does it, ``go_on`` does it again after a kill. ``state`` says what
    came out, ``whole`` what is wrong with what a kill has left, before it goes on.
    """
    name: str
    prepare: Callable[[Path], None]
    start: Callable[[], None]
    go_on: Callable[[], None]
    state: Callable[[Path], dict]
    whole: Callable[[Path], str | None] = lambda folder: None
    is_training: bool = True
    counts: dict = field(default_factory=dict)
    reference: dict = field(default_factory=dict)

    def measure(self, root: Path) -> None:
        """Does it undisturbed: what comes out, how many events there are, how much CPU time it takes."""
        for kind in ('file', *(['hook'] if self.is_training else [])):
            with new_folder(root) as folder:
                self.prepare(folder)
                end = run(partial(counting, self.start, kind), folder)
                if end.how != 'done':
                    raise RuntimeError(f'{self.name}: {end.how}: {end.said}\n{end.output}')
                self.counts |= end.result
                self.reference = self.state(folder)


def counting(start: Callable[[], None], kind: str) -> dict:
    begin = time.process_time()
    with Events(kind) as events:
        start()
    return {kind: events.count, 'cpu': time.process_time() - begin}


def disturbed(start: Callable[[], None], kind: str, stop: int, act: str, share: float) -> None:
    with Events(kind, stop, act, share):
        start()


def killed_after(start: Callable[[], None], seconds: float) -> None:
    """Kills this process after so much CPU time, wherever it is then."""
    signal.setitimer(signal.ITIMER_PROF, max(seconds, 1e-4))             # its default is to end the process, by no code
    start()


def differs(found: dict, wanted: dict) -> str | None:
    """The first thing that is another one than it would be without a kill."""
    for name in dict.fromkeys([*wanted, *found]):
        if found.get(name) != wanted.get(name):
            return f'{name} is {found.get(name, "missing")}, and {wanted.get(name, "not there")} without a kill'
    return None


def after(work: Work, disturb: Callable[[], None], how: tuple[str, ...], root: Path, times: int = 1) -> str | None:
    """Disturbs the work, as often as told, goes on, and compares; what is wrong."""
    with new_folder(root) as folder:
        work.prepare(folder)
        for i in range(times):
            end = run(disturb if i == 0 else partial(disturb.func, work.go_on, *disturb.args[1:]), folder)
            if problem := end.problem(*how):
                return problem
            if problem := work.whole(folder):
                return f'after the kill {problem}'
        end = run(work.go_on, folder)
        problem = end.problem('done')
        return f'going on: {problem}' if problem else differs(work.state(folder), work.reference)


def in_two_processes(start: Callable[[], None]) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            start()
            code = 0
        finally:
            os._exit(code)
    start()
    if os.waitpid(child, 0)[1]:
        raise RuntimeError('the other one of the two has failed')


def two_at_once(work: Work, root: Path) -> str | None:
    """Does the work in two processes at the same time, and compares; what is wrong."""
    with new_folder(root) as folder:
        work.prepare(folder)
        end = run(partial(in_two_processes, work.go_on), folder)
        return end.problem('done') or differs(work.state(folder), work.reference)


def cases(root: Path, seed: int) -> Iterator[tuple[str, str, Callable[[], str | None]]]:
    """(kind, name, case) of all kills; a case returns what is wrong, or None."""
    for work in works(root):
        work.measure(root)
        draw = random.Random(f'{seed} {work.name}')
        files, hooks, cpu = work.counts['file'], work.counts.get('hook', 0), work.counts['cpu']
        for stop in range(1, files + 1):
            yield 'at every change of a file', f'{work.name}, change {stop} of {files}', partial(
                after, work, partial(disturbed, work.start, 'file', stop, 'kill', 0.), ('killed', ), root)
        for stop in range(1, files + 1, 6):
            share = round(draw.random(), 2)
            yield 'a file half on the disk', f'{work.name}, change {stop} of {files}, {share}', partial(
                after, work, partial(disturbed, work.start, 'file', stop, 'torn', share), ('killed', ), root)
        for i in range(0 if work.is_training else 5):
            yield 'two at once', f'{work.name}, {i}', partial(two_at_once, work, root)
        if work.is_training:
            for stop in sorted(draw.sample(range(1, hooks + 1), min(hooks, 12))):
                yield 'at a hook of the training', f'{work.name}, hook {stop} of {hooks}', partial(
                    after, work, partial(disturbed, work.start, 'hook', stop, 'kill', 0.), ('killed', ), root)
            for stop in sorted(draw.sample(range(1, hooks + 1), min(hooks, 6))):
                yield 'Ctrl-C at a hook', f'{work.name}, hook {stop} of {hooks}', partial(
                    after, work, partial(disturbed, work.start, 'hook', stop, 'interrupt', 0.), ('line', ), root)
        for _ in range(8):
            share = round(draw.random(), 3)
            yield 'at random', f'{work.name}, after {share} of its time', partial(
                after, work, partial(killed_after, work.start, share * cpu), ('killed', 'done'), root)
        for _ in range(3):
            share, times = round(0.2 + 0.6 * draw.random(), 3), draw.randint(2, 4)
            yield 'at random, several times', f'{work.name}, {times} times, after {share} of its time', partial(
                after, work, partial(killed_after, work.start, share * cpu), ('killed', 'done'), root, times)
        for stop in range(2, files + 1, 8):
            yield 'a full disk', f'{work.name}, from change {stop} of {files} on', partial(
                after, work, partial(disturbed, work.start, 'file', stop, 'full', 0.), ('line', 'done'), root)


# What a training leaves.

def digest(value) -> str:
    """Eight digits that differ where a nested value does, tensors bit for bit."""
    sha = hashlib.sha256()

    def add(each) -> None:
        if isinstance(each, torch.Tensor):
            sha.update(f'{each.dtype}{tuple(each.shape)}'.encode())
            sha.update(each.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(each, dict):
            for key in each:
                sha.update(f'{key}:'.encode())
                add(each[key])
        elif isinstance(each, (list, tuple)):
            for one in each:
                add(one)
        else:
            sha.update(repr(each).encode())

    add(value)
    return sha.hexdigest()[:8]


def state_of_training(*folders: str) -> Callable[[Path], dict]:
    """Of work directories: their files, and what is in each checkpoint."""
    def state(folder: Path) -> dict:
        found = {}
        for name in folders:
            for file in sorted(Path(folder, name).glob('*')):
                if TIMESTAMP.match(file.name):           # of the log
                    continue
                key = f'{name}/{file.name}'
                found[key] = 'there'
                if file.suffix == '.pth':
                    checkpoint = torch.load(file, weights_only=True)
                    best = file.name.startswith('best_')
                    info = checkpoint['message_hub']['runtime_info']
                    parts = [checkpoint['state_dict'], checkpoint['meta']['epoch'], checkpoint['meta']['iter']]
                    parts += [] if best else [checkpoint['optimizer'], checkpoint['param_schedulers']]
                    found[key] = digest(parts)
                    if not best:
                        found[f'{key}, best score before it'] = str(info.get('best_score'))
                elif file.name == 'last_checkpoint':
                    found[key] = Path(file.read_text()).name
        return found

    return state


def whole_trainings(*folders: str) -> Callable[[Path], str | None]:
    """Is a checkpoint by a final name a half one, or does the pointer name none?"""
    def whole(folder: Path) -> str | None:
        for name in folders:
            for file in Path(folder, name).glob('*.pth'):
                try:
                    torch.load(file, weights_only=True)
                except Exception as error:
                    return f'{file.name} is damaged: {error}'
            pointer = Path(folder, name, 'last_checkpoint')
            if pointer.exists() and not Path(folder, name, Path(pointer.read_text()).name).is_file():
                return f'last_checkpoint names {pointer.read_text()!r}, which is not there'
        return None

    return whole


def write_config(cfg: Config, file: Path) -> None:
    """The config for a tool, whose experiments get their names from the time."""
    for name in ('experiment_name', 'work_dir'):
        cfg.pop(name, None)
    cfg.dump(str(file))


HOOKS = [dict(type=f'mmcrrcd.{kind}') for kind in ('CheckInputHook', 'EpochSeedHook', 'PlainCheckpointHook', 'FiniteHook')]


def training(root: Path, name: str, cfg: Config, *options: str, more: Callable[[Path], None] = lambda folder: None,
             folders: tuple[str, ...] = ('out', )) -> Work:
    """A training by tools/train.py in a folder with its config and teacher."""
    base = root / name.replace(' ', '_')
    base.mkdir()
    tiny.write_teacher(base / 'teacher.pth')
    write_config(cfg, base / 'run.py')
    more(base)

    def start(*how: str) -> None:
        train_tool.main(['run.py', '--work-dir', 'out', *options, *how])

    return Work(name, lambda folder: shutil.copytree(base, folder, dirs_exist_ok=True), start, partial(start, '--resume'),
                state_of_training(*folders), whole_trainings(*folders))


def write_images(base: Path) -> None:
    tiny.write_folder(base / 'train', 0)
    tiny.write_folder(base / 'val', 1)


def works(root: Path) -> Iterator[Work]:
    """All kinds of work, each made when it is asked for."""
    root.mkdir(exist_ok=True)
    yield from other_works(root)
    crrcd = partial(tiny.crrcd, Path('teacher.pth'))
    yield training(root, 'CRRCD', tiny.config('', crrcd(), epochs=3, custom_hooks=HOOKS))

    cfg = tiny.config('', crrcd(), train_cfg=dict(by_epoch=False, max_iters=6, val_interval=2), custom_hooks=HOOKS,
                      param_scheduler=dict(type='MultiStepLR', by_epoch=False, milestones=[4]),
                      train_dataloader=tiny.in_memory_loader(0, True) | dict(sampler=dict(type='InfiniteSampler')))
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=2)
    yield training(root, 'by iterations', cfg)

    val = tiny.pipeline_loader(Path('val'), training=False)
    yield training(root, "mmpretrain's pipeline", tiny.config(
        '', crrcd(normalizer='batch'), epochs=2, custom_hooks=HOOKS, train_dataloader=tiny.pipeline_loader(Path('train'), True),
        val_dataloader=val, test_dataloader=val, val_evaluator=dict(type='Accuracy', topk=(1, )),
        test_evaluator=dict(type='Accuracy', topk=(1, ))), '--amp', more=write_images)

    teacher = dict(type='mmcrrcd.Distiller', student=tiny.TEACHER, data_preprocessor=crrcd(None)['data_preprocessor'] | dict(
        resolution=None), input_size=tiny.SIZE)
    yield training(
        root, 'teacher and student', tiny.config('', crrcd() | dict(teacher_checkpoint='teacher'), epochs=2, custom_hooks=HOOKS,
                                                 teacher_config='teacher.py'), '--train-teacher', folders=('teacher', 'out'),
        more=lambda base: write_config(tiny.config('', teacher, epochs=2, custom_hooks=HOOKS), base / 'teacher.py'))

    yield training(root, 'from a cache', tiny.config('', crrcd(), epochs=2, custom_hooks=HOOKS), '--cache-teacher', '2')
    objective = dict(crd=dict(type='mmcrrcd.CRDLoss', num_samples=tiny.IMAGES, num_negatives=8), at=dict(type='mmcrrcd.ATLoss'))
    yield training(root, 'other losses', tiny.config('', crrcd(objective=objective), epochs=2, custom_hooks=HOOKS,
                                                     optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='Adam'))))


# What other tools write.

def digests_of_files(*patterns: str) -> Callable[[Path], dict]:
    def state(folder: Path) -> dict:
        files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
        return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()[:8] for file in files}

    return state


def whole_results(state: Callable[[Path], dict], work: list[Work], before: dict) -> Callable[[Path], str | None]:
    """Is a file by a final name neither the one before nor the one that is to come?"""
    def whole(folder: Path) -> str | None:
        for name, found in state(folder).items():
            fine = before.get(name), work[0].reference.get(name)
            if not name.endswith('.part') and '.part/' not in name and found not in fine:
                return f'{name} is neither the old file nor the new one'
        return None

    return whole


def writing(root: Path, name: str, prepare: Callable[[Path], None], start: Callable[[], None], go_on: Callable[[], None],
            *patterns: str) -> Work:
    """Something that ends in files which are the same each time."""
    base, made = root / name.replace(' ', '_'), []
    base.mkdir()
    if (end := run(partial(prepare, base), base)).how != 'done':
        raise RuntimeError(f'{name}: {end.said}\n{end.output}')
    state = digests_of_files(*patterns)
    work = Work(name, lambda folder: shutil.copytree(base, folder, dirs_exist_ok=True), start, go_on, state,
                whole_results(state, made, state(base)), is_training=False)
    made.append(work)
    return work


def finished_training(base: Path, out: str = 'out', **settings) -> None:
    tiny.write_teacher(base / 'teacher.pth')
    write_config(tiny.config('', tiny.crrcd(Path('teacher.pth'), **settings), epochs=1, custom_hooks=HOOKS), base / 'run.py')
    train_tool.main(['run.py', '--work-dir', out])


def older_export(base: Path) -> None:
    """An export of weights of another training."""
    finished_training(base, 'older', beta=0.25)
    export_student.main(['older', '--out', 'student'])
    finished_training(base)


def other_works(root: Path) -> Iterator[Work]:
    def export(*how: str) -> None:
        export_student.main(['out', '--out', 'student', *how])

    yield writing(root, 'an export', finished_training, export, partial(export, '--overwrite'), 'student/*')
    yield writing(root, 'an export over another', older_export, partial(export, '--overwrite'), partial(export, '--overwrite'),
                  'student/*')

    def comparison() -> None:
        compare.main(['out', '--out', 'comparison.png'])

    yield writing(root, 'a comparison', finished_training, comparison, comparison, 'comparison.*')

    def cache() -> None:
        cache_teacher.main(['run.py', '--views', '3', '--folder', 'answers'])

    yield writing(root, "a teacher's answers", finished_training, cache, cache, 'answers*/*')

    def faces(base: Path) -> None:
        write_images(base)

    def decode() -> None:
        FaceFolder('train', image_size=16)

    yield writing(root, 'decoded images', faces, decode, decode, 'train/mmcrrcd*')

    def tested(base: Path) -> None:
        finished_training(base)
        for name in ('metrics.json', 'all.json', 'all.npz'):
            (base / name).write_text('{"of": "an older test"}')

    for name, options in (('metrics', ()), ('all', ('--out-item', 'pred'))):
        def test(name: str = name, options: tuple[str, ...] = options) -> None:
            test_tool.main(['run.py', 'out', '--out', f'{name}.json', *options])

        yield writing(root, f'a test with its {name}', tested, test, test, f'{name}.json*')
