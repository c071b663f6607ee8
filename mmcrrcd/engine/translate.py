"""What mmengine and torch say of a wrong setting, in one line."""
import errno
import re
import sys
import traceback
from tempfile import gettempdir
from types import FrameType

from torch import OutOfMemoryError, nn

from mmcrrcd.errors import first_line, nearest

from .settings import registered

PREPARING = ('build_', '_build_', '__init__', 'set_', '_check', 'from_cfg', 'setup_', 'register_')     # of the Runner
BUILDERS = ('build_from_cfg', 'build_scheduler_from_cfg')
LIBRARIES = ('mmengine', 'mmpretrain', 'mmcv', 'torch', 'torchvision')
ALWAYS_INPUT = (AssertionError, NotImplementedError, OSError, ValueError)      # in a constructor
MAY_BE_INPUT = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ZeroDivisionError)    # in one of a library


DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EISDIR,
        errno.EEXIST, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOTCONN, errno.EFBIG, errno.ELOOP}
TOO_LARGE = re.compile("can't allocate memory|Overflow when unpacking|[Ss]ize calculation overflowed")
OURS = re.compile(r'^(?:[\w.]+\.)?(?:InputError|ImageError|FileNotFoundError): (.+)$', re.MULTILINE)
GO_ON = '--resume goes on with a training from its last checkpoint'


def of_worker(error: BaseException) -> str | None:
    """The line of an error of this package that a loader's worker hands on as a text with its traceback; None for others."""
    found = OURS.findall(str(error)) if 'Original Traceback' in str(error) else []
    return found[-1] if found else None


def of_machine(error: BaseException) -> str | None:
    """The line for what a disk, a network or another process did, wherever it was noticed; None for other errors."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in DISK:
        name = error.filename or f'a file, perhaps one in {gettempdir()},'
        return f'{name} cannot be read or written: {error.strerror}; {GO_ON}'
    if isinstance(error, (MemoryError, OutOfMemoryError)) or TOO_LARGE.search(text):
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        asked = next((type(frame.f_locals['self']).__name__ for frame in reversed(frames) if library(frame) != 'torch'
                      and isinstance(frame.f_locals.get('self'), nn.Module)), None)
        return (f'there is not enough memory{f" for {asked}" if asked else ""} ({first_line(error)[:200]}); a smaller '
                'batch_size, smaller images or numbers take less')
    if not isinstance(error, RuntimeError):
        return None
    if found := re.search(r'DataLoader timed out after (\d+\S*) seconds', text):
        return (f'a loader worker has not answered for {found[1]} s (timeout of the dataloader in its config); is it '
                f'stopped, or its disk? {GO_ON}')
    if found := re.search(r'DataLoader worker \(pid\(?s?\)? ([\d, ]+)\) (?:is killed by signal: (\w+)|exited)', text):
        how = f'was killed ({found[2]})' if found[2] else 'ended unexpectedly'
        return f'loader worker {found[1]} {how}; is there enough memory? num_workers=0 shows errors of the data; {GO_ON}'
    if re.search(r'[Tt]imed out (waiting|after)|Connection (closed|reset) by peer|wait timeout', text):
        return (f'another process has ended, or has not answered in the time of env_cfg.dist_cfg.timeout: '
                f'{first_line(error)[:200]}; {GO_ON}')
    return None


def library(frame: FrameType) -> str:
    """The package that a frame's code is of."""
    return str(frame.f_globals.get('__name__', '')).split('.')[0]


def short(settings) -> str:
    """Settings in one line of at most about 200 characters."""
    text = ', '.join(f'{key}={getattr(value, "__name__", None) or repr(value)}' for key, value in dict(settings).items())
    return text if len(text) <= 200 else text[:200] + ' ...'


def of_constructor(error: Exception, frame: FrameType, last: bool) -> str | None:
    """The line for an error from building a part of a config; None for a bug.

    Args:
        frame: that of mmengine's function that builds; ``last``: the error was raised in it.
    """
    values = frame.f_locals
    kind = values.get('obj_type', values.get('scheduler_type'))
    if last and isinstance(error, KeyError) and 'registry' in first_line(error):
        if isinstance(kind, str):
            registry = values['registry']
            name = kind.split('.')[-1]
            return f'type={kind!r} is in no registry of a {registry.name}{nearest(name, registered(registry))}'
    if last and isinstance(error, KeyError) and '"type"' in first_line(error):
        return f'a part of the config lacks its type: dict({short(values["cfg"])})'
    target = values.get('obj_cls', values.get('scheduler_cls'))
    if target is None:
        return first_line(error) if last else None
    name = getattr(target, '__name__', str(target))
    if last and isinstance(error, TypeError):
        missing = re.search(r'missing \d+ required .*?: (.+)$', first_line(error))
        unknown = re.search(r"unexpected keyword argument '(\w+)'", first_line(error))
        if missing:
            return f'{name} needs {missing[1]}, got dict({short(values["args"])})'
        return f'{name} has no setting {unknown[1]!r}' if unknown else f'{name} cannot be built: {first_line(error)}'
    if isinstance(error, ALWAYS_INPUT) or isinstance(error, MAY_BE_INPUT) and str(target.__module__).split('.')[0] in LIBRARIES:
        return f'{name} cannot be built of dict({short(values["args"])}): {first_line(error)}'
    return None


def translate(error: Exception) -> str | None:
    """The line for an error that a setting or a file caused, raised where a library builds or reads; None for a bug.

    A wrong type, argument or value in a config ends in mmengine's functions that build. An error from there is the config's
    where the class is a library's, or the error is one of values. What a class of this package or of your own stumbles over
    keeps its traceback.
    """
    if (line := of_worker(error) or of_machine(error)) is not None:
        return line
    if isinstance(error, AssertionError):
        unreadable = re.findall(r'failed to load image: (.+)', str(error))          # mmcv's; from a worker with traceback
        if unreadable:
            return f'{unreadable[-1]} cannot be read as an image'
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, ImportError) and any(frame.f_globals.get('__name__') == 'mmengine.config.lazy' for frame in frames):
        return first_line(error)                               # a config's import, which mmengine runs late
    raised = next((frame for frame in reversed(frames) if library(frame) not in sys.stdlib_module_names), None)
    building = [i for i, frame in enumerate(frames) if frame.f_code.co_name in BUILDERS and library(frame) == 'mmengine']
    if building:
        if library(raised) not in LIBRARIES and not isinstance(error, ALWAYS_INPUT):
            return None
        return of_constructor(error, frames[building[-1]], building[-1] == len(frames) - 1)
    # Of a library's hooks, which look at their settings when they see the model, or begin.
    called = [frame.f_locals for frame in frames if frame.f_code.co_name == 'call_hook' and library(frame) == 'mmengine']
    if called and called[-1]['fn_name'] in ('before_run', 'before_train') and isinstance(error, (*ALWAYS_INPUT, TypeError)):
        kind = type(called[-1].get('hook'))
        if library(raised) in LIBRARIES and kind.__module__.split('.')[0] in LIBRARIES:
            return f'{kind.__name__}: {first_line(error)}'
    # The Runner's own: loaders, loops, sections that belong together.
    runner = [i for i, frame in enumerate(frames) if str(frame.f_globals.get('__name__')) == 'mmengine.runner.runner'
              and (frame.f_code.co_name.startswith(PREPARING)
                   or frame is frames[-1] and frame.f_code.co_name != 'call_hook')]
    if runner and library(raised) in LIBRARIES and isinstance(error, ALWAYS_INPUT + MAY_BE_INPUT):
        place = frames[runner[-1]].f_code.co_name.strip('_').removeprefix('build_')
        return f'the {place} cannot be made: {first_line(error)}' if place != 'init' else first_line(error)
    return None
