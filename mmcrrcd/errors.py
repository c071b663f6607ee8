"""The error for input that cannot work."""
import math
from numbers import Integral, Real


class InputError(ValueError):
    """A file or a setting that cannot work. The message is one line that names it and what was expected; the tools print
    that line without a traceback.
    """


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
