"""Many runs, each in a process of its own that goes on where it was interrupted; two shells share the work."""
import hashlib
import json
import os
import shlex
import shutil
import sys
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen

import torch
from mmengine.config import Config
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmcrrcd.checkpoint import find_checkpoint
from mmcrrcd.config import read_values
from mmcrrcd.engine.teacher import is_trained
from mmcrrcd.errors import InputError
from mmcrrcd.files import write_json
from mmcrrcd.torch_file import safe_load

from . import records
from .compose import ROOT, Recipe, counted, load, shortened
from .worker import BUSY

WORK = Path('work_dirs/experiments')
DECIDES = ('model', 'train_dataloader', 'val_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg')
POLL, RETRY = 1, 30                                      # seconds


@cache
def about_the_teacher(path: str) -> dict:
    """Epochs, accuracy in percent (both None where unknown), checksum, and the file it was imported from, of a teacher."""
    file = find_checkpoint(path)
    meta, accuracies = safe_load(file).get('meta', {}), {}
    if (state := file.parent / 'state.json').exists():
        accuracies = {int(epoch): row.get('accuracy') for epoch, row in json.loads(state.read_text())['epochs'].items()}
    if (imported := file.parent / 'evaluated.json').exists():
        row = json.loads(imported.read_text())
        accuracies[row['step']] = row['accuracy/top1']
    source = dict(source=meta['source'], source_sha256=meta['sha256']) if 'source' in meta else {}
    return dict(checkpoint=Path(path).name, epochs=meta.get('epoch'), accuracy=accuracies.get(meta.get('epoch')),
                sha256=hashlib.sha256(file.read_bytes()).hexdigest()[:12], **source)


def check_same(cfg: Config, text: str, source: Path) -> None:
    """Raises InputError where the config ``text``, which is data, differs in what decides the accuracy, the teacher's place
    aside.
    """
    def deciding(cfg: Config) -> str:
        settings = {key: cfg.to_dict().get(key) for key in DECIDES}
        model = settings['model'] | dict(teacher_checkpoint=None)
        return json.dumps(settings | dict(model=model), sort_keys=True)

    if deciding(read_values(text, source)) != deciding(cfg):
        raise InputError(f'{source} is of a run with other settings: move it away to train with those of now')


@dataclass(eq=False)
class Run:
    """A training in ``folder`` with the tests after it, and the ``record`` that it leaves (None for a teacher).

    ``about`` is what the record says of it; ``needs`` the run that trains its teacher, which is found at ``teacher``. Where it
    is ``untrained``, the teacher itself is tested by ``cfg``. ``further``: a second training, see :func:`compose.further`.
    """
    name: str
    folder: Path
    cfg: Config
    record: Path | None = None
    about: dict = field(default_factory=dict)
    teacher: str | None = None
    needs: 'Run | None' = None
    untrained: bool = False
    further: str | None = None
    process: Popen | None = None
    slot: int | None = None
    failure: str | None = None
    not_before: float = 0.0

    @property
    def epochs(self) -> int:
        return 0 if self.untrained else self.cfg.train_cfg.max_epochs

    @property
    def finished(self) -> bool:
        return self.record.exists() if self.record else self.reached() >= self.epochs and is_trained(self.folder)

    def check(self) -> None:
        """Raises InputError where what there is of it has other settings than those of now, or another teacher."""
        config = self.folder / 'config.py'
        if self.finished and self.record:
            if text := json.loads(self.record.read_text())['config']:                # results of earlier programs have none
                check_same(self.cfg, text, self.record)
        elif config.exists():
            check_same(self.cfg, config.read_text(), self.folder)
        if self.record and self.teacher and is_trained(self.teacher):
            now = about_the_teacher(self.teacher)['sha256']
            for file in self.record.parent.glob(f'{self.record.stem.rpartition("__s")[0]}__s*.json'):
                if (json.loads(file.read_text())['teacher'] or {}).get('sha256', now) != now:
                    raise InputError(f'{file} is of another teacher than that of {self.teacher}: move the file away')

    def prepare(self) -> Path:
        """Writes what the worker reads."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cfg.dump(self.folder / 'config.py')
        file = self.folder / f'{self.about.get("experiment", "run")}.json'
        write_json(file, dict(
            record=self.record and str(self.record), about=self.about, further=self.further,
            teacher=about_the_teacher(self.teacher) if self.teacher else None,
            checkpoint=self.teacher if self.untrained else None,
            commit=records.commit(), command=shlex.join(['python', '-m', 'experiments', *sys.argv[1:]])))
        return file

    def start(self, slot: int, launch: list[str], env: dict[str, str]) -> None:
        file = self.prepare()
        with open(self.folder / 'output.txt', 'a') as output:
            self.process = Popen([*launch, sys.executable, '-u', '-m', 'experiments.worker', str(file)], env=env,
                                 stdin=PIPE, stdout=output, stderr=STDOUT)
        self.slot = slot

    def end(self) -> str | None:
        """After its process has ended: what to say of it; nothing where another process has the training."""
        code, self.process = self.process.returncode, None
        if code == BUSY:
            self.not_before = time.monotonic() + RETRY
            return None
        lines = (self.folder / 'output.txt').read_text(errors='replace').splitlines()
        last = next((line for line in reversed(lines) if line.strip()), f'exit code {code}')
        if code or not self.finished:
            self.failure = last
        return f'failed: {last}' if self.failure else last if self.record else 'trained'

    def reached(self) -> int:
        """Epochs done."""
        state = self.folder / 'state.json'
        return max(map(int, json.loads(state.read_text())['epochs']), default=0) if state.exists() else 0


def teacher_run(cfg: Config, recipe: Recipe, checkpoint: str | None = None) -> tuple[str | None, Run | None]:
    """Where the trained teacher of a composed ``cfg`` is, and the run that trains it where it is not there yet.

    ``checkpoint`` is taken where it is given. A teacher that is there already is taken as it is, a shortened one trained here
    has a folder of its own.
    """
    path = cfg.model.get('teacher_checkpoint')
    if path is None:
        return None, None
    if checkpoint or is_trained(path):
        if not is_trained(checkpoint or path):
            raise InputError(f'--teacher-checkpoint {checkpoint}: there is no finished training, and no checkpoint')
        return checkpoint or path, None
    folder = WORK / 'teachers' / f'{Path(path).name}_in_{recipe.epochs}e' if recipe.epochs else Path(path)
    name = Path(cfg.teacher_config).with_suffix('').relative_to('configs')
    own = shortened(counted(load(str(name))), Recipe(epochs=recipe.epochs, amp=recipe.amp))
    return str(folder), Run(f'teacher {name.name}', folder, own)


def launcher(run: Run, slot: int, jobs: int, slurm: str | None) -> tuple[list[str], dict[str, str]]:
    """What stands before a run's command, and its environment: a GPU of a Slurm partition, or one of this machine's."""
    env = os.environ | dict(PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]))
    if slurm:
        return ['srun', f'--partition={slurm}', f'--job-name={run.name.replace(" ", "-")}', '--gres=gpu:1', '--ntasks=1',
                f'--cpus-per-task={env.get("CPUS_PER_TASK", 5)}', *env.get('SRUN_ARGS', '').split()], env
    visible = env.get('CUDA_VISIBLE_DEVICES')
    gpus = visible.split(',') if visible else range(torch.cuda.device_count())
    if gpus:
        env['CUDA_VISIBLE_DEVICES'] = str(gpus[slot % len(gpus)])
    env.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // jobs)))
    return [], env


def carry_out(wanted: list[Run], jobs: int, slurm: str | None, console: Console) -> list[str]:
    """Trains ``wanted`` and the teachers that they need, ``jobs`` side by side, with a bar for each and one for all.

    A failure stops those that need it, no others. What another process trains is waited for. Returns what failed, and why.
    """
    if slurm and not shutil.which('srun'):
        raise InputError('--slurm needs srun, which was not found')
    for run in wanted:
        run.check()
    left = [run for run in wanted if not run.finished]
    teachers = {run.needs.folder: run.needs for run in left if run.needs}
    for run in left:
        run.needs = run.needs and teachers[run.needs.folder]             # one run each
    everyone = left = [*(run for run in teachers.values() if not run.finished), *left]
    for run in teachers.values():
        run.check()
    console.print(f'runs: {len(wanted)}, to go: {len(left)}, in {WORK}', soft_wrap=True)
    columns = (TextColumn('{task.description}'), BarColumn(), TextColumn('epoch {task.completed:.0f} / {task.total:.0f}'),
               TimeElapsedColumn(), TextColumn('left'), TimeRemainingColumn())
    bars = {}
    with Progress(*columns, console=console, refresh_per_second=1, speed_estimate_period=7 * 86_400) as progress:
        whole = progress.add_task(f'{len(left)} runs', total=sum(run.epochs for run in left))
        try:
            while left:
                busy = {run.slot for run in left if run.process}
                ready = [run for run in left if not run.process and time.monotonic() >= run.not_before
                         and (run.needs is None or run.needs.finished)]
                for slot, run in zip([slot for slot in range(jobs) if slot not in busy], ready):
                    run.start(slot, *launcher(run, slot, jobs, slurm))
                    bars[run] = progress.add_task(run.name, total=run.epochs)
                time.sleep(POLL)
                for run in left:
                    if run.needs and run.needs.failure:
                        run.failure = f'{run.needs.name} failed'
                    if not run.process:
                        continue
                    progress.update(bars[run], completed=run.reached())
                    if run.process.poll() is not None:
                        progress.remove_task(bars.pop(run))
                        if said := run.end():
                            console.print(f'{run.name}: {said}', highlight=False, markup=False, soft_wrap=True)
                left = [run for run in left if run.process or not (run.failure or run.finished)]
                progress.update(whole, completed=sum(run.epochs if run.finished else run.reached() for run in everyone))
        finally:
            for run in everyone:
                if run.process:
                    run.process.terminate()
                    run.process.wait()
    return [f'{run.name}: {run.failure}' for run in everyone if run.failure]
