"""The error for input that cannot work."""
import difflib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real


# What code says to values that it cannot work with, where it has no checks of its own.
WRONG = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


class InputError(ValueError):
    """A file or a setting that cannot work. The message is one line that names it and what was expected; the tools print
    that line without a traceback.
    """


def first_line(error: object) -> str:
    """What an error says, in one line; the name of its kind where it says nothing.

    Example:
        >>> first_line(KeyError('a name')), first_line(AssertionError())
        ('a name', 'AssertionError')
    """
    text = error.msg if isinstance(error, SyntaxError) else error
    text = error.args[0] if isinstance(error, KeyError) and error.args else text           # no quotes around it
    return (str(text).strip().splitlines() or [type(error).__name__])[0]


def with_kind(error: BaseException) -> str:
    """The kind of an error and what it says, in one line.

    Example:
        >>> with_kind(KeyError('a name')), with_kind(AssertionError())
        ('KeyError: a name', 'AssertionError')
    """
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f'{kind}: {line}'


@contextmanager
def explained(what: str, kinds: type[Exception] | tuple[type[Exception], ...] = Exception,
              say: Callable[[BaseException], str] = with_kind) -> Iterator[None]:
    """Errors of these kinds in the block become ``InputError('<what>: <error>')``; InputError and FileNotFoundError stay."""
    try:
        yield
    except (InputError, FileNotFoundError):
        raise
    except kinds as error:
        raise InputError(f'{what}: {say(error)}') from error


def is_number(value, whole: bool = False) -> bool:
    """Is it a finite real number (with ``whole`` an integer), and neither True nor False?"""
    return isinstance(value, Integral if whole else Real) and not isinstance(value, bool) and math.isfinite(value)


def check_positive(whole: bool = False, **settings) -> None:
    """Raises InputError for the first of ``settings`` that is no positive number, with ``whole`` no positive integer."""
    for name, value in settings.items():
        if not is_number(value, whole) or value <= 0:
            raise InputError(f'{name} is a positive {"whole " if whole else ""}number, got {value!r}')


def printable(text: object) -> str:
    """``text`` with control characters, and those that turn the direction of writing, as escapes: safe on a terminal.

    Names of files come from elsewhere, and a terminal obeys what is in them. Line breaks are escaped, too.

    Example:
        >>> printable('a\\x1b[31m.png')
        'a\\\\x1b[31m.png'
    """
    return ''.join(c if c.isprintable() else c.encode('unicode_escape', 'surrogatepass').decode() for c in str(text))


def distance(a: str, b: str) -> int:
    """How many letters are put in, left out, replaced or swapped with the next between ``a`` and ``b``."""
    before, last = [], list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        row = [i]
        for j, other in enumerate(b, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (letter != other)))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                row[-1] = min(row[-1], before[j - 2] + 1)
        before, last = last, row
    return last[-1]


def nearest(name: str, known, edits: int | None = None) -> str:
    """``; did you mean 'x'?`` of the one in ``known`` that ``name`` is nearest to; nothing where none is near.

    Args:
        edits: at most so many letters apart; None for what :mod:`difflib` calls close.
    """
    known = sorted(str(each) for each in known)
    found = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if edits is not None:
        found = sorted((each for each in known if distance(str(name), each) <= edits), key=lambda each: distance(name, each))
    return f'; did you mean {found[0]!r}?' if found else ''
