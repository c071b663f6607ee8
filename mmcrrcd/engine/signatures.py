"""What a class or function takes, by its signature, and whether a value is of that kind."""
import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Sequence

from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch import nn

from mmcrrcd.errors import InputError, is_number

PLAIN = (str, bool, int, float)


def forwards(init: Callable, kwargs: str) -> bool:
    """Does ``init`` do nothing with its ``**kwargs`` but hand them to ``super().__init__``?"""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, SyntaxError, TypeError):
        return False
    handed = sum(isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == '__init__'
                 and any(word.arg is None and isinstance(word.value, ast.Name) and word.value.id == kwargs
                         for word in call.keywords) for call in ast.walk(tree))
    return handed == 1 == sum(isinstance(node, ast.Name) and node.id == kwargs for node in ast.walk(tree))


def parameters(target) -> dict[str, inspect.Parameter] | None:
    """All that a class, its bases where it hands on ``**kwargs``, or a function takes; None where only running it tells."""
    found = {}
    inits = [target]
    if inspect.isclass(target):
        inits = [vars(base)['__init__'] for base in target.__mro__ if '__init__' in vars(base)]
    for init in inits:
        if init in (object.__init__, nn.Module.__init__):
            return found
        try:
            signature = inspect.signature(init)
        except (TypeError, ValueError):
            return None
        rest = None
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = name
            elif parameter.kind is not parameter.VAR_POSITIONAL and name != 'self':
                found.setdefault(name, parameter.replace(annotation=hints(init).get(name, parameter.annotation)))
        if rest is None:
            return found
        if init is CheckpointHook.__init__:              # keeps the rest for the Runner
            return found | dict(inspect.signature(Runner.save_checkpoint).parameters)
        if not forwards(init, rest):
            return None
    return found if inspect.isclass(target) else None


def hints(function: Callable) -> dict:
    """The annotations of a function, none where they cannot be read."""
    try:
        return typing.get_type_hints(function)
    except Exception:                                    # names that only type checkers import
        return {}


def alternatives(annotation) -> set:
    """The types of a union, or the one that there is."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return set().union(*(alternatives(each) for each in typing.get_args(annotation)))
    return {typing.get_origin(annotation) or annotation}


def check_numbers(value, annotation, name: str) -> None:
    """Raises InputError where a parameter takes a list of numbers only, or so many of them, and ``value`` is none."""
    kinds = [each for each in (typing.get_args(annotation) if typing.get_origin(annotation) in (typing.Union, types.UnionType)
                               else [annotation]) if each is not type(None)]
    args = typing.get_args(kinds[0]) if len(kinds) == 1 and typing.get_origin(kinds[0]) in (tuple, list, Sequence) else ()
    numbers = set(args) - {...}
    if not numbers or not numbers <= {int, float} or value is None and len(kinds) < len(alternatives(annotation)):
        return
    length = len(args) if typing.get_origin(kinds[0]) is tuple and ... not in args else None
    whole = numbers == {int}
    if not isinstance(value, (list, tuple)) or length not in (None, len(value)) or not all(is_number(v, whole) for v in value):
        what = f'{"whole " if whole else ""}numbers'
        raise InputError(f'{name} is {f"{length} {what}" if length else f"a list of {what}"}, got {value!r}')


def fits(value, expected: set) -> bool:
    """Is ``value`` of one of the types, or may it be, as one of them is no class?"""
    return any(not isinstance(each, type) or isinstance(value, each) for each in expected)


def check_value(value, parameter: inspect.Parameter, name: str, ours: bool) -> None:
    """Raises InputError where a number or a yes or no was expected, and ``value`` is neither. ``ours``: by the whole
    annotation, else texts only, as annotations of others are not always true.
    """
    expected = alternatives(parameter.annotation)
    if dict in expected and isinstance(value, (*PLAIN, list, tuple)) and not fits(value, expected):
        raise InputError(f'{name} is a dict, got {value!r}')
    if ours:
        check_numbers(value, parameter.annotation, name)
    if parameter.annotation is parameter.empty and isinstance(parameter.default, bool):
        expected = {bool}
    plain = {bool: 'True or False', int: 'a whole number', float: 'a number', str: 'a text', type(None): 'None'}
    if not expected <= plain.keys():
        return
    allowed = (type(value) in expected or value is None and parameter.default is None
               or float in expected and is_number(value, whole=True))
    never = isinstance(value, str) or isinstance(value, dict) and str not in expected         # an arch may be a name or a dict
    if never and type(value) not in expected or ours and not allowed:
        words = ' or '.join(plain[each] for each in plain if each in expected)
        raise InputError(f'{name} is {words}, got {value!r}')
