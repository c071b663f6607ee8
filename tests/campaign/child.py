"""Cases in processes of their own: forks of one that has imported everything, so that a case takes a fraction of a second."""
import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmcrrcd.command_line import one_line_errors
from mmcrrcd.interrupt import CODE, LINE

SECONDS = 60                                             # of a case; then it hangs
MEMORY = 1 << 30                                         # bytes that a case may take beyond what all begin with
OURS = Path(__file__).resolve().parents[2]


@dataclass
class End:
    """How a child ended.

    ``how``: 'done', 'line' (one line, for the user), 'lines', 'traceback', 'killed' (by the signal ``number``), or 'hangs'.
    ``said`` is the line, or the last one; ``result`` what the function returned; ``output`` what it printed.
    """
    how: str
    said: str = ''
    result: object = None
    number: int = 0
    output: str = ''
    memory: int = 0

    def problem(self, *fine: str) -> str | None:
        """What is wrong where a child may only end in the ways ``fine``; None where nothing is."""
        if self.memory > MEMORY:
            return f'it takes {self.memory >> 20} MiB'
        if self.how not in fine:
            number = f' {self.number}' if self.how == 'killed' else ''
            return f'{self.how}{number}: {self.said}' if self.said or self.how != 'done' else 'it is taken in silence'
        if self.how == 'line' and 'Traceback' in self.output:
            return f'a traceback before the line: {self.said}'
        return None


def report(function: Callable[[], object]) -> dict:
    """Calls the function as a tool of this package would be called; how it ended, as values of JSON's kinds."""
    try:
        with one_line_errors():
            return dict(how='done', result=function())
    except SystemExit as error:
        if error.code in (None, 0):
            return dict(how='done')
        if error.code == CODE:                           # the line is on stderr
            return dict(how='line', said=LINE)
        text = str(error.code)
        whole = text.startswith(('error: ', 'interrupted')) and text.isprintable() and len(text) < 600
        return dict(how='line' if whole else 'lines', said=text[:600])
    except BaseException as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(OURS))]
        place = f'{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}' if frames else '?'
        return dict(how='traceback', said=f'{type(error).__name__}: {str(error)[:300]} ({place})')


def run(function: Callable[[], object], folder: Path, seconds: float = SECONDS) -> End:
    """Calls a function in a child whose current folder is ``folder``.

    All processes that it has started end with it.
    """
    log = folder.with_name(f'{folder.name}.log')
    log.unlink(missing_ok=True)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _in_child(function, folder, log, write)
    os.close(write)
    end = _wait(child, read, time.monotonic() + seconds)
    end.output = log.read_text(errors='replace') if log.exists() else ''
    return end


def _in_child(function: Callable[[], object], folder: Path, log: Path, write: int) -> None:
    code = 1
    with contextlib.suppress(BaseException):
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)         # a shell's background jobs begin without it
        os.chdir(folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for each in (1, 2):
            os.dup2(output, each)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        room = 4096 * int(Path('/proc/self/statm').read_text().split()[0]) + 3 * MEMORY if sys.platform == 'linux' else -1
        resource.setrlimit(resource.RLIMIT_AS, (room, room))             # a link to /dev/zero would fill the machine
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        told = report(function)
        told['memory'] = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        content = memoryview(json.dumps(told, default=str).encode())
        while content:
            content = content[os.write(write, content):]
        sys.stdout.flush()
        sys.stderr.flush()
        code = 0
    os._exit(code)


def _wait(child: int, read: int, deadline: float) -> End:
    parts = []
    os.set_blocking(read, False)
    status = None
    while status is None:
        with contextlib.suppress(BlockingIOError):
            while part := os.read(read, 1 << 16):
                parts.append(part)
        found, ended = os.waitpid(child, os.WNOHANG)
        if found:
            status = ended
        elif time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            status = 'hangs'
        else:
            time.sleep(0.004)
    with contextlib.suppress(BlockingIOError):
        while part := os.read(read, 1 << 16):
            parts.append(part)
    os.close(read)
    with contextlib.suppress(ProcessLookupError, PermissionError):       # loader workers that it has left
        os.killpg(child, signal.SIGKILL)
    if status == 'hangs':
        return End('hangs')
    if os.WIFSIGNALED(status):
        return End('killed', number=os.WTERMSIG(status))
    text = b''.join(parts).decode()
    return End(**json.loads(text)) if text else End('traceback', said='the child gave no answer')


@contextlib.contextmanager
def new_folder(root: Path):
    """An empty folder for a case; it is removed afterwards, and what lies beside it of its name."""
    folder = Path(tempfile.mkdtemp(prefix='case', dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(f'{folder.name}.log').unlink(missing_ok=True)
