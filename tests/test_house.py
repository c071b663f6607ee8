"""The house: no import runs upwards, and no path is bent for one."""
import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ('datasets', 'models', 'evaluation', 'engine', 'visualization', 'inference', 'deployment', 'command_line')
FLOORS = [*(f'mmcrrcd.{name}' for name in LIBRARY), 'tools', 'benchmarks', 'experiments', 'tests']     # others lie below
BESIDE = {'tools': {'benchmarks', 'experiments'}, 'benchmarks': {'tools'}, 'experiments': {'tools', 'benchmarks'}}
FILES = [file for name in ('mmcrrcd', 'tools', 'benchmarks', 'experiments') for file in sorted((ROOT / name).rglob('*.py'))
         if '.mim' not in file.parts]


def floor(module: str) -> int:
    """The number of a module's floor, -1 where it is in none."""
    return max((i for i, name in enumerate(FLOORS) if f'{module}.'.startswith(f'{name}.')), default=-1)


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports, anywhere in it; of ``from a import b`` it is a.b."""
    package = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[:len(package) - node.level + 1] if node.level else ()
            yield from ('.'.join([*start, *filter(None, [node.module]), alias.name]) for alias in node.names)


def test_no_import_runs_upwards():
    wrong = []
    for file in FILES:
        own = '.'.join(file.relative_to(ROOT).with_suffix('').parts)
        beside = BESIDE.get(own.partition('.')[0], set())
        wrong += [f'{own} imports {name}' for name in imported(file)
                  if floor(name) > floor(own) or name.partition('.')[0] in beside]
    assert not wrong


def test_it_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr('test_house.ROOT', tmp_path)
    file = tmp_path / 'mmcrrcd' / 'models' / 'new.py'
    file.parent.mkdir(parents=True)
    file.write_text('def f():\n    from ..engine import launch\n    import experiments.tables\n    from .losses import kd\n')
    found = list(imported(file))
    assert found == ['mmcrrcd.engine.launch', 'experiments.tables', 'mmcrrcd.models.losses.kd']
    assert [floor(name) > floor('mmcrrcd.models.new') for name in found] == [True, True, False]


@pytest.mark.parametrize('words', ['sys.path.insert', 'sys.path.append', 'noqa: E402'])
def test_no_path_is_bent_for_an_import(words):
    assert not [str(file) for file in FILES if words in file.read_text(encoding='utf-8')]
