"""Many trainings, each in a process of its own that goes on where it was interrupted: ``python tools/runs.py FOLDER``."""
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import torch
import train
from filelock import FileLock, Timeout
from mmengine.config import Config
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmcrrcd.engine.launch import one_line_errors
from mmcrrcd.environment import about_this_run
from mmcrrcd.errors import InputError


def curve(folder: Path) -> dict[int, float]:
    """Test accuracy in percent after each epoch that was tested, over all interruptions."""
    rows = []
    for file in [*sorted(folder.glob('*/vis_data/scalars.json')), folder / 'evaluated.json']:
        lines = file.read_text().splitlines() if file.exists() else []
        rows += [json.loads(line) for line in lines if line.endswith('}')]             # the last may be half written
    return {row['step']: row['accuracy/top1'] for row in rows if 'accuracy/top1' in row}


def means(folder: Path) -> dict[str, float]:
    """Of losses and scores over the last epoch, where the training was in step with others."""
    file = folder / 'evaluated.json'
    last = json.loads(file.read_text().splitlines()[-1]) if file.exists() else {}
    return {name: value for name, value in last.items() if name not in ('step', 'accuracy/top1')}


def seconds(folder: Path) -> float:
    """Wall time from the start of each process to the last line of its log, added up."""
    total = 0.0
    for log in folder.glob('*/*.log'):
        stamps = re.findall(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - ', log.read_text(), re.MULTILINE)
        if stamps:
            start = datetime.strptime(log.parent.name, '%Y%m%d_%H%M%S')
            total += (datetime.strptime(stamps[-1], '%Y/%m/%d %H:%M:%S') - start).total_seconds()
    return total


def reached(folder: Path) -> int:
    """Epochs of which there is a checkpoint."""
    file = folder / 'last_checkpoint'
    epoch = re.search(r'epoch_(\d+)\.pth$', file.read_text()) if file.exists() else None
    return int(epoch[1]) if epoch else 0


class BeingTrained(InputError):
    """Another process has the training."""


@contextmanager
def locked(training: Path) -> Iterator[None]:
    """Raises BeingTrained where another process has this training, a folder or the file with its state."""
    lock = FileLock(training / 'lock' if training.is_dir() else training.with_suffix('.lock'))
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        raise BeingTrained(f'{training} is being trained by another process') from None
    with held:
        yield


class Run:
    """A training in ``folder``, after ``needs``, and what to do and to say when it has finished."""

    def __init__(self, name: str, folder: Path, cfg: Config, needs: 'Run | None' = None,
                 then: Callable[[], str] = lambda: 'finished'):
        self.name, self.folder, self.cfg, self.needs, self.then = name, folder, cfg, needs, then
        self.epochs = cfg.train_cfg.max_epochs
        self.process, self.slot = None, None
        self.finished, self.failure = False, None        # why it failed

    @property
    def waits(self) -> bool:
        return self.process is None and not self.finished and not self.failure

    def command(self) -> list[str]:
        return [sys.executable, '-u', __file__, str(self.folder)]

    def start(self, slot: int, launch: list[str], env: dict[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cfg.dump(self.folder / 'config.py')
        with open(self.folder / 'output.txt', 'w') as output:
            self.process = subprocess.Popen([*launch, *self.command()], env=env, stdin=subprocess.PIPE, stdout=output,
                                            stderr=subprocess.STDOUT)
        self.slot = slot

    def end(self) -> str:
        """After its process has ended: what to say of it."""
        if self.process.returncode == 0:
            said = self.conclude()
        else:
            lines = (self.folder / 'output.txt').read_text(errors='replace').splitlines()
            self.failure = next((line for line in reversed(lines) if line.strip()), f'exit code {self.process.returncode}')
            said = f'failed: {self.failure}'
        self.process = None
        return said

    def conclude(self) -> str:
        """Does what is left when the training has finished; what to say of it."""
        try:
            said = self.then()
        except (InputError, FileNotFoundError) as error:
            self.failure = str(error)
            return f'failed: {error}'
        self.finished = True
        return said

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def launcher(run: Run, slot: int, jobs: int, slurm: str | None) -> tuple[list[str], dict[str, str]]:
    """What stands before a run's command, and its environment: a GPU of a Slurm partition, or one of this machine's."""
    env = os.environ.copy()
    if slurm:
        return ['srun', f'--partition={slurm}', f'--job-name={run.name.replace(" ", "-")}', '--gres=gpu:1', '--ntasks=1',
                f'--cpus-per-task={env.get("CPUS_PER_TASK", 5)}', *env.get('SRUN_ARGS', '').split()], env
    visible = env.get('CUDA_VISIBLE_DEVICES')
    gpus = visible.split(',') if visible else range(torch.cuda.device_count())
    if gpus:
        env['CUDA_VISIBLE_DEVICES'] = str(gpus[slot % len(gpus)])
    env.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // jobs)))
    return [], env


def carry_out(runs: list[Run], jobs: int, slurm: str | None, console: Console) -> None:
    """``jobs`` of them side by side, with a bar for each and one for all; a failure stops those that need it, no others."""
    if slurm and not shutil.which('srun'):
        raise InputError('--slurm needs srun, which was not found')
    columns = (TextColumn('{task.description}'), BarColumn(), TextColumn('epoch {task.completed:.0f} / {task.total:.0f}'),
               TimeElapsedColumn(), TextColumn('left'), TimeRemainingColumn())
    done, bars = {run: reached(run.folder) for run in runs}, {}
    with Progress(*columns, console=console, speed_estimate_period=7 * 86_400) as progress:
        total = sum(run.epochs for run in runs)
        everything = progress.add_task(f'{len(runs)} runs', total=total, completed=sum(done.values()))
        try:
            while any(run.waits or run.process for run in runs):
                for run in runs:
                    if run.waits and run.needs and run.needs.failure:
                        run.failure = f'{run.needs.name} failed'
                free = [slot for slot in range(jobs) if all(run.slot != slot for run in runs if run.process)]
                ready = [run for run in runs if run.waits and (run.needs is None or run.needs.finished)]
                for slot, run in zip(free, ready):
                    run.start(slot, *launcher(run, slot, jobs, slurm))
                    bars[run] = progress.add_task(run.name, total=run.epochs, completed=done[run])
                time.sleep(0.2)
                for run in [run for run in runs if run.process]:
                    ended = run.process.poll() is not None
                    done[run] = reached(run.folder)
                    progress.update(bars[run], completed=done[run])
                    if ended:
                        console.print(f'{run.name}: {run.end()}', highlight=False, markup=False, soft_wrap=True)
                        progress.remove_task(bars[run])
                progress.update(everything, completed=sum(done.values()))
        finally:
            for run in runs:
                if run.process:
                    run.stop()


def end_with_parent() -> None:
    """Ends this process when the one that holds the other end of its standard input has ended, however it did."""
    def wait():
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    folder = Path(sys.argv[1])
    end_with_parent()
    with one_line_errors(), locked(folder):
        with open(folder / 'about.jsonl', 'a') as out:
            out.write(json.dumps(about_this_run()) + '\n')
        sys.argv = ['train.py', str(folder / 'config.py'), '--work-dir', str(folder), '--resume']
        train.main()


if __name__ == '__main__':
    main()
