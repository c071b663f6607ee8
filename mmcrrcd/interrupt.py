"""Ctrl-C while a tool still imports what it needs: one line, as later. A tool imports this first."""
import os
import sys

LINE = 'interrupted; a training goes on from its last checkpoint with --resume'
CODE = 130                                               # the exit status that a shell gives to what Ctrl-C ended
PARENT = os.getppid()                                    # who started this; another number later: it has ended since
_before = sys.excepthook


def say_interrupted(kind, error, trace) -> None:
    """For ``sys.excepthook``: all else is said as before."""
    if issubclass(kind, KeyboardInterrupt):
        print(LINE, file=sys.stderr)
    else:
        _before(kind, error, trace)


sys.excepthook = say_interrupted
