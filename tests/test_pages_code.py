"""Every code block of the pages: commands are understood by the tools that they name, Python runs in a test or is a part."""
import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import __main__ as experiments

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob('*.md')), *sorted(ROOT.glob('docs/**/*.md')), *sorted(ROOT.glob('configs/**/*.md'))]
BLOCK = re.compile(r'(<!-- fragment[^>]*-->\n)?^```(\w+)\n(.*?)^```$', re.DOTALL | re.MULTILINE)
BLOCKS = [(page.relative_to(ROOT).as_posix(), number, *block) for page in PAGES
          for number, block in enumerate(BLOCK.findall(page.read_text(encoding='utf-8')))]
CONFIGS = {match for *_, text in BLOCKS for match in re.findall(r'^# (configs/\S+\.py)$', text, re.MULTILINE)}
RUN = {                                                  # pages whose further Python a test of their own runs
    'README.md': 'test_the_lines_that_use_a_student_run', 'docs/model_zoo.md': 'test_the_lines_that_use_a_student_run',
    'docs/deployment.md': 'the same, and test_export_onnx.py', 'docs/add_a_method.md': 'test_add_a_method.py',
    'docs/teachers.md': 'test_teachers_page.py', 'docs/mmpretrain.md': 'test_mmpretrain_projects.py'}
OTHERS = ('pip', 'cd', 'git', 'mim')                     # commands that are not of this package


class Understood(Exception):
    """The arguments of a tool."""


def commands(text: str) -> list[list[str]]:
    lines = (shlex.split(line, comments=True) for line in text.replace('\\\n', ' ').splitlines())
    return [[word for word in line if word != 'PYTHONPATH=.'] for line in lines if line]


def understand(words: list[str], monkeypatch) -> None:
    """Parses a command as its tool does, up to there."""
    parse = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        raise Understood(parse(self, args, namespace))

    program, *arguments = words
    if program == 'make':
        targets = re.findall(r'^(\w+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)
    elif program.startswith('tools/'):
        assert (ROOT / program).exists()
    elif words[:3] == ['python', '-m', 'experiments']:
        experiments.parse_args(words[3:])
    elif words[:2] == ['python', '-m']:
        assert (ROOT / f'{words[2].replace(".", "/")}.py').exists()
    elif program == 'python':
        monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
        monkeypatch.setattr(sys, 'argv', arguments)
        monkeypatch.syspath_prepend(ROOT / 'tools')       # as for a script there
        with pytest.raises(Understood):
            runpy.run_path(str(ROOT / arguments[0]), run_name='__main__')
        monkeypatch.undo()
    else:
        assert program in OTHERS, f'nobody knows {program}'
    for word in words:
        assert not re.fullmatch(r'configs/\S+\.py', word) or (ROOT / word).exists() or word in CONFIGS, f'no config {word}'


@pytest.mark.parametrize('page, number, text',
                         [(page, number, text) for page, number, _, kind, text in BLOCKS if kind == 'bash'])
def test_commands_are_understood(page, number, text, monkeypatch):
    for words in commands(text):
        understand(words, monkeypatch)


@pytest.mark.parametrize('page, number, fragment, text',
                         [(page, number, fragment, text) for page, number, fragment, kind, text in BLOCKS if kind == 'python'])
def test_python_runs_in_a_test_or_is_a_fragment(page, number, fragment, text):
    compile(text, page, 'exec')
    assert fragment or page in RUN or text.startswith('# configs/'), 'no test runs it: mark it as a fragment, or test it'


def test_there_are_no_other_blocks():
    assert {kind for *_, kind, _ in BLOCKS} <= {'bash', 'python', 'bibtex', 'include', 'toctree', 'eval'}


@pytest.mark.parametrize('page', ['README.md', 'docs/deployment.md', 'docs/model_zoo.md'])
def test_the_lines_that_use_a_student_run(page, tmp_path, monkeypatch, capsys):
    """The student of the zoo stands for a work directory."""
    text = next(text for where, *_, kind, text in BLOCKS if where == page and 'load_student' in text and kind == 'python')
    (tmp_path / 'camera').mkdir()
    for name in ('a.png', 'b.png', 'camera/c.png'):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    exec(re.sub(r"'work_dirs/\w+'", "'resnet8_glyphs_8px'", text), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (2 if page == 'README.md' else 1) and all(0 < float(line.split()[-1]) <= 1 for line in lines)
