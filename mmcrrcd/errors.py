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
