"""What a number needs beside it: command, versions, hardware."""
import os
import platform
import re
import shlex
import sys
from pathlib import Path

import mmengine
import mmpretrain
import torch


def about_this_run() -> dict:
    """Of this process: command, versions, processor or GPU, threads."""
    info = Path('/proc/cpuinfo')
    names = re.findall(r'model name\s*: (.*)', info.read_text()) if info.exists() else []
    processor = f'{names[0] if names else platform.processor()}, {os.cpu_count()} cores'
    module = sys.modules['__main__'].__spec__            # of `python -m package.module`
    program = ['-m', module.name.removesuffix('.__main__')] if module else sys.argv[:1]
    return dict(command=shlex.join(['python', *program, *sys.argv[1:]]),
                versions=dict(python=platform.python_version(), torch=str(torch.__version__), mmengine=mmengine.__version__,
                              mmpretrain=mmpretrain.__version__),
                hardware=torch.cuda.get_device_name() if torch.cuda.is_available() else processor,
                threads=torch.get_num_threads())


def machine(run: dict) -> str:
    """What :func:`about_this_run` tells of hardware and versions, in one sentence."""
    versions = ', '.join(f'{package} {version}' for package, version in run['versions'].items())
    return f'{run["hardware"]}, {run["threads"]} thread(s); {versions}.'


def command(run: dict) -> str:
    """The command of a run, and the commit that it works at."""
    return f'`{run["command"]}`' + (f' at {run["commit"]}' if run.get('commit') else '')


def conditions(run: dict) -> str:
    """Where, with what and by which command something was measured, in one line."""
    return f'{machine(run)} {command(run)}'
