"""Ctrl-C while a tool still imports what it needs: one line, as later. A tool imports this first."""
import os
import signal
import sys

LINE = 'interrupted; a training goes on from its last checkpoint with --resume'
CODE = 130                                               # the exit status that a shell gives to what Ctrl-C ended
PARENT = os.getppid()                                    # who started this; another number later: it has ended since
_before, _ignored = sys.excepthook, sys.unraisablehook
_pressed = []


def say_interrupted(kind, error, trace) -> None:
    """For ``sys.excepthook``: all else is said as before."""
    if issubclass(kind, KeyboardInterrupt):
        print(LINE, file=sys.stderr)
    else:
        _before(kind, error, trace)


def interrupt(*_) -> None:
    """The handler of Ctrl-C: Python's own, but it is remembered."""
    _pressed.append(True)
    raise KeyboardInterrupt


def say_unless_interrupted(what) -> None:
    """For ``sys.unraisablehook``: what Ctrl-C left half made has more to say when it goes."""
    if not _pressed:
        _ignored(what)


sys.excepthook, sys.unraisablehook = say_interrupted, say_unless_interrupted
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:        # a shell's background jobs ignore it
    signal.signal(signal.SIGINT, interrupt)
