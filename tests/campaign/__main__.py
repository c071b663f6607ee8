"""The campaign: ``PYTHONPATH=.:tests python -m campaign``, or ``make campaign``; prints a table of what was tried.

Each case is made by its kind from the seed. What is finished is kept, line by line, in work_dirs/campaign, and not done again:
the same command goes on after an interruption. ``python -m experiments render`` puts the table into docs/reliability.md.
"""
import argparse
import contextlib
import gc
import json
import logging
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mmengine.config.config
import mmengine.runner.runner
import tiny

from campaign import code, files, kills, settings
from mmcrrcd.environment import about_this_run, conditions
from mmcrrcd.visualization.markdown import markdown_table

PARTS = dict(kills=kills, settings=settings, files=files, code=code)
TITLES = dict(kills='Kills and full disks', settings='Wrong settings', files='Damaged files', code='Files with code')
KEPT = Path(__file__).resolve().parent / 'results'


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m campaign', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--only', metavar='TEXT', help='cases with this in their kind or name')
    parser.add_argument('--share', type=float, default=1., help='of the cases of each part, drawn by the seed (default: all); '
                        'the table has all that are finished')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--failed', action='store_true', help='do the failed ones again, and no others')
    parser.add_argument('--count', action='store_true', help='do nothing, count what is finished')
    parser.add_argument('--list', action='store_true', help='name the cases, do nothing')
    parser.add_argument('--log', type=Path, default=Path('work_dirs/campaign'), metavar='FOLDER', help='of finished cases')
    parser.add_argument('--keep', action='store_true', help='write the results that docs/reliability.md shows')
    return parser.parse_args(argv)


def finished(log: Path) -> dict[tuple[str, str], dict]:
    """By kind and name; half a line, of a killed campaign, is left out."""
    found = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            found[row['kind'], row['name']] = row
    return found


def log_of(name: str, args: argparse.Namespace) -> Path:
    return args.log / f'{name}_{args.seed}.jsonl'


def carry_out(name: str, args: argparse.Namespace, root: Path) -> int:
    """Does the cases of a part that are drawn and not finished, and logs them; returns how many the part has."""
    log = log_of(name, args)
    log.parent.mkdir(parents=True, exist_ok=True)
    done, number = finished(log), 0
    for kind, case, function in PARTS[name].cases(root / name, args.seed):
        number += 1
        drawn = random.Random(f'{args.seed} {kind} {case}').random() < args.share
        row = done.get((kind, case))
        wanted = row and row['problem'] if args.failed else row is None and drawn
        if not wanted or args.only is not None and args.only not in f'{kind}: {case}':
            continue
        if args.list:
            print(f'{name}: {kind}: {case}')
            continue
        row = dict(kind=kind, name=case, **outcome(function))
        if row['problem']:
            print(f'{name}: {kind}: {case}: {row["problem"]}', flush=True)
        with open(log, 'a') as file:
            file.write(json.dumps(row) + '\n')
    return number


def outcome(function: Callable[[], str | None]) -> dict:
    """What is wrong in a case, None where nothing is, and its seconds."""
    begin = time.perf_counter()
    problem = function()
    return dict(problem=problem, seconds=round(time.perf_counter() - begin, 2))


def table(result: dict) -> str:
    """Markdown of the results."""
    rows = []
    for name, kinds in result['parts'].items():
        rows += [[TITLES[name] if i == 0 else '', kind, f'{counts["cases"]:,}', counts['failed']]
                 for i, (kind, counts) in enumerate(kinds.items())]
        cases, failed = (sum(counts[key] for counts in kinds.values()) for key in ('cases', 'failed'))
        there = result.get('all', {}).get(name)          # more where a share was drawn
        rows.append(['', '**all kinds**', f'**{cases:,}**' + (f' of {there:,}' if there else ''), f'**{failed}**'])
    text = markdown_table(['part', 'kind', 'cases', 'failed'], rows)
    return f'{text}\n\nSeed {result["seed"]}, {result["minutes"]} minutes on a busy machine. {conditions(result)}'


def counted(rows: list[dict]) -> dict[str, dict]:
    kinds = {}
    for row in rows:
        counts = kinds.setdefault(row['kind'], dict(cases=0, failed=0))
        counts['cases'] += 1
        counts['failed'] += row['problem'] is not None
    return dict(sorted(kinds.items()))


def warm_up(root: Path) -> None:
    """What is imported and compiled on first use is so before the first fork."""
    logging.disable()                                    # of this process only: children say what they would
    work = kills.training(root, 'warm_up', tiny.config('', tiny.crrcd(Path('teacher.pth')), epochs=1, custom_hooks=kills.HOOKS))
    here = os.getcwd()
    os.chdir(root / 'warm_up')
    with open(os.devnull, 'w') as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        work.start()
    os.chdir(here)
    logging.disable(logging.NOTSET)
    gc.freeze()                                          # children then copy less of the memory


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    mmengine.config.config.FormatCode = lambda text, **_: (text, False)  # its layout takes longer than a tiny training
    mmengine.runner.runner.collect_env = dict            # it starts compilers to ask for their versions
    memory = '/dev/shm' if os.access('/dev/shm', os.W_OK) else None      # where fsync costs nothing
    root = Path(tempfile.mkdtemp(prefix='mmcrrcd-campaign', dir=memory))
    try:
        if not args.list and not args.count:
            warm_up(root)
        there = {}
        for name in args.parts if not args.count else ():
            (root / name).mkdir()
            there[name] = carry_out(name, args, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if args.list:
        return
    found = {name: list(finished(log_of(name, args)).values()) for name in PARTS}
    rows = [row for part in found.values() for row in part]
    result = about_this_run() | dict(
        seed=args.seed, minutes=round(sum(row['seconds'] for row in rows) / 60), all=there, parts={
            name: counted(part) for name, part in found.items()},
        failed=[dict(part=name, **row) for name, part in found.items() for row in part if row['problem']])
    result['command'] = 'PYTHONPATH=.:tests python -m campaign'           # of which each has done a part
    print(table(result))
    if args.keep:
        KEPT.mkdir(exist_ok=True)
        (KEPT / 'reliability.json').write_text(json.dumps(result, indent=1) + '\n')
        (KEPT / 'reliability.md').write_text(table(result) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
