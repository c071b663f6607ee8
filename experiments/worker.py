"""One run in a process of its own: trains it, or goes on with it, and writes its record: ``python -m experiments.worker FILE``.

FILE is a JSON file that :class:`experiments.runs.Run` writes.
"""
import json
import os
import sys
import threading
import time
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from mmengine.config import Config
from mmengine.hooks import Hook

from mmcrrcd.checkpoint import find_checkpoint
from mmcrrcd.command_line import one_line_errors
from mmcrrcd.engine.launch import build_runner, prepare_processes
from mmcrrcd.environment import about_this_run
from mmcrrcd.files import write_json

from . import evaluate
from .compose import further
from .records import provenance, seconds

BUSY = 75                                                # exit code where another process has the training


class RecordHook(Hook):
    """Keeps what the record needs in ``state.json`` of the work directory, after each epoch and over all interruptions."""

    def __init__(self, file: Path):
        self.file = file
        state = json.loads(file.read_text()) if file.exists() else dict(epochs={}, processes=[])
        self.rows, self.processes, self.totals = {int(key): row for key, row in state['epochs'].items()}, state['processes'], {}
        self.processes.append(about_this_run())

    def row(self, epoch: int) -> dict:
        return self.rows.setdefault(epoch, {})

    def save(self) -> None:
        write_json(self.file, dict(epochs=dict(sorted(self.rows.items())), processes=self.processes))

    def before_train_epoch(self, runner) -> None:
        self.totals, self.start = {}, time.perf_counter()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        for name, value in (outputs or {}).items():      # a part is not there in every step
            total, number = self.totals.get(name, (0, 0))
            self.totals[name] = total + value.detach().float(), number + 1

    def after_train_epoch(self, runner) -> None:
        means = {name: round(float(total) / number, 5) for name, (total, number) in self.totals.items()}
        if 'accuracy' in means:
            means['train_accuracy'] = means.pop('accuracy')
        self.row(runner.epoch + 1).update(means, train_seconds=round(time.perf_counter() - self.start, 2))
        self.save()

    def before_val(self, runner) -> None:
        self.start = time.perf_counter()

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        row = dict(test_seconds=round(time.perf_counter() - self.start, 2))
        if metrics and 'accuracy/top1' in metrics:
            row['accuracy'] = round(metrics['accuracy/top1'], 4)
        self.row(runner.epoch).update(row)
        self.save()


def end_with_parent() -> None:
    """Ends this process when the one that holds the other end of its standard input has ended, however it did."""
    def wait():
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def train(folder: Path, cfg: Config) -> tuple[list[dict], dict, list[dict]]:
    """The training in ``folder`` to its end: rows of the epochs, seconds, and the processes that it took."""
    cfg = Config(cfg.to_dict())                          # without a file, or the Runner would write over it
    cfg.work_dir, cfg.resume = str(folder), True
    prepare_processes(cfg, 'none')
    runner = build_runner(cfg)
    hook = RecordHook(folder / 'state.json')
    runner.register_hook(hook, 'NORMAL')
    runner.train()
    last = cfg.train_cfg.max_epochs
    if cfg.get('val_dataloader') and 'accuracy' not in hook.row(last):           # stopped between the last epoch and its test
        runner.val_loop.run()
    rows = [dict(epoch=epoch, **row) for epoch, row in sorted(hook.rows.items())]
    return rows, seconds(rows, len(runner.train_dataloader)), hook.processes


def work(file: Path) -> None:
    """Trains what ``file`` says, tests it, writes the record."""
    spec, folder = json.loads(file.read_text()), file.parent
    config, about, rows, times, processes = folder / 'config.py', spec['about'], [], None, [about_this_run()]
    cfg, checkpoint, more = Config.fromfile(config), spec['checkpoint'], {}
    if checkpoint is None:
        rows, times, processes = train(folder, Config.fromfile(config))
        checkpoint = str(folder)
    if spec['record'] is None:                           # a teacher
        return
    if spec['further']:
        last = find_checkpoint(folder)
        folder = folder / Path(spec['further']).name
        folder.mkdir(exist_ok=True)
        then = further(spec['further'], cfg, last)
        then.dump(folder / 'config.py')
        _, more['seconds'], _ = train(folder, then)
        more['config'], config, checkpoint = then.pretty_text, folder / 'config.py', str(folder)
    found = evaluate.results(about, config, checkpoint, rows)
    record = about | dict(results=found, teacher=spec['teacher'], seconds=times)
    record |= dict(further=more) if more else {}
    record |= dict(provenance=provenance(processes, spec['command'], spec['commit']), epochs=rows, config=cfg.pretty_text)
    write_json(spec['record'], record)
    print(evaluate.in_words(found) + (f', {times["wall"] / 60:.1f} min' if times else ''))


def main(argv: list[str] | None = None) -> None:
    file = Path((argv or sys.argv[1:])[0])
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())))
    try:
        with one_line_errors(), FileLock(file.parent / 'lock', timeout=0):
            work(file)
    except Timeout:
        sys.exit(BUSY)


if __name__ == '__main__':
    end_with_parent()
    main()
