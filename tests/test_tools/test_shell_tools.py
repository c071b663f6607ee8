"""The shell launchers: usage, and the command line they hand to torchrun and srun."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools'
SCRIPTS = {'dist_train.sh': ['config.py', '2'],
           'dist_test.sh': ['config.py', 'model.pth', '2'],
           'slurm_train.sh': ['part', 'job', 'config.py', 'work']}
LAUNCHER_VARIABLES = ('NNODES', 'NODE_RANK', 'MASTER_ADDR', 'PORT', 'GPUS', 'GPUS_PER_NODE', 'CPUS_PER_TASK',
                      'SRUN_ARGS', 'PYTHON')

pytestmark = pytest.mark.skipif(shutil.which('bash') is None, reason='the launchers need bash')


def run(script: Path, *args: str, **variables: str) -> subprocess.CompletedProcess:
    inherited = {key: value for key, value in os.environ.items() if key not in LAUNCHER_VARIABLES}
    env = inherited | variables
    return subprocess.run(['bash', str(script), *args], capture_output=True, text=True, env=env, timeout=120)


@pytest.fixture
def echo(tmp_path):
    """A program that prints its arguments, one a line, in place of python and srun."""
    for name in ('python', 'srun'):
        (tmp_path / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (tmp_path / name).chmod(0o755)
    return {'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}', 'PYTHON': 'python'}


@pytest.mark.parametrize('script', [*(f'tools/{name}' for name in SCRIPTS), '.ci/run'])
def test_is_executable_bash_without_syntax_errors(script):
    assert os.access(ROOT / script, os.X_OK)
    assert subprocess.run(['bash', '-n', str(ROOT / script)]).returncode == 0


@pytest.mark.parametrize('script', SCRIPTS)
def test_missing_arguments_print_the_usage(script):
    for given in range(len(SCRIPTS[script])):
        result = run(TOOLS / script, *SCRIPTS[script][:given])
        assert result.returncode == 2
        assert result.stdout == ''
        assert re.fullmatch(r'usage: .*\n', result.stderr)


@pytest.mark.parametrize('script, args', [
    ('dist_train.sh', ['2', 'config.py']),
    ('dist_test.sh', ['config.py', 'x.pth', '0']),
])
def test_a_number_of_gpus_that_is_none_prints_the_usage(script, args):
    result = run(TOOLS / script, *args)
    assert result.returncode == 2
    assert result.stderr.startswith('usage: ')


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh'])
def test_torchrun_gets_every_argument_as_it_was_written(script, echo):
    args = run(TOOLS / script, *SCRIPTS[script], '--cfg-options', 'a="b c"', **echo).stdout.splitlines()
    assert args[0] == '-c' and any('torch.distributed.run' in line for line in args)      # -m imports from the current folder
    assert '--standalone' in args and '--nproc-per-node=2' in args
    tail = [*SCRIPTS[script][:-1], '--launcher', 'pytorch', '--cfg-options', 'a="b c"']
    assert args[-len(tail):] == tail


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh'])
def test_several_nodes_meet_at_the_given_address(script, echo):
    nodes = dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='node0', PORT='1234')
    args = run(TOOLS / script, *SCRIPTS[script], **echo, **nodes).stdout.splitlines()
    assert {'--nnodes=2', '--node-rank=1', '--master-addr=node0', '--master-port=1234'} <= set(args)
    assert '--standalone' not in args


def test_slurm_gets_its_resources_and_the_command(echo):
    variables = dict(GPUS='4', SRUN_ARGS='--quotatype=auto --time=10', CPUS_PER_TASK='3')
    args = run(TOOLS / 'slurm_train.sh', *SCRIPTS['slurm_train.sh'], '--amp', **echo, **variables).stdout.splitlines()
    assert {'--partition=part', '--job-name=job', '--gres=gpu:4', '--ntasks=4', '--ntasks-per-node=4',
            '--cpus-per-task=3', '--quotatype=auto', '--time=10'} <= set(args)
    assert args[-4:] == ['config.py', '--work-dir=work', '--launcher=slurm', '--amp']


@pytest.mark.slow
def test_nothing_is_imported_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'data').mkdir()
    for name in ('dist_train.sh', 'torchrun.sh'):
        shutil.copy(TOOLS / name, tmp_path / 'tools')
    (tmp_path / 'tools' / 'train.py').write_text('import argparse, json\nprint("trained")\n')
    for name in ('torch', 'argparse', 'json', 'mmengine', 'sitecustomize', 'mmcrrcd'):
        (tmp_path / 'data' / f'{name}.py').write_text('raise SystemExit("planted code has run")')
    monkeypatch.chdir(tmp_path / 'data')
    for inherited in ('', ':', f':{tmp_path}/nothing:'):
        result = run(tmp_path / 'tools' / 'dist_train.sh', 'config.py', '1', PYTHON=sys.executable, PYTHONPATH=inherited)
        assert result.returncode == 0 and result.stdout == 'trained\n', result.stderr


def test_two_processes_start_on_one_machine(tmp_path):
    for name in ('dist_train.sh', 'torchrun.sh'):
        shutil.copy(TOOLS / name, tmp_path)
    (tmp_path / 'train.py').write_text(
        'import os, sys\n'
        'sys.stdout.write(" ".join([os.environ["RANK"], os.environ["WORLD_SIZE"], *sys.argv[1:]]) + "\\n")\n')
    result = run(tmp_path / 'dist_train.sh', 'config.py', '2', '--amp', PYTHON=sys.executable)
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.splitlines()) == [f'{rank} 2 config.py --launcher pytorch --amp' for rank in (0, 1)]


@pytest.mark.slow
def test_the_line_of_an_error_of_all_processes_comes_last_and_once(tmp_path):
    for name in ('dist_train.sh', 'torchrun.sh'):
        shutil.copy(TOOLS / name, tmp_path)
    (tmp_path / 'train.py').write_text(
        'from mmcrrcd.command_line import one_line_errors\nfrom mmcrrcd.errors import InputError\n'
        'with one_line_errors():\n    raise InputError("a wrong setting")\n')
    result = run(tmp_path / 'dist_train.sh', 'config.py', '2', PYTHON=sys.executable, PYTHONPATH=str(TOOLS.parent))
    assert result.returncode == 1 and result.stderr.splitlines()[-1] == 'error: a wrong setting'
    assert result.stderr.count('a wrong setting') == 1
