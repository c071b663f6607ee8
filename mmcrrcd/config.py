"""Configs from files: programs in Python, which are trusted, and the texts of finished trainings, which are read as data."""
import ast
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.utils import get_object_from_string

from mmcrrcd.errors import InputError

PACKAGES = ('mmengine', 'mmcv', 'mmpretrain', 'mmcrrcd', 'torch', 'torchvision')


def read_config(path: str | Path) -> Config:
    """The config at ``path``, a Python file: a program, which is run.

    mmengine takes YAML and JSON, too, but would run what such data name as code, so these are refused.

    Raises:
        FileNotFoundError: there is none.
        InputError: it is no Python file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'there is no config {path}')
    if Path(path).suffix != '.py':
        raise InputError(f'{path} is no config: configs are Python files, in .py')
    return Config.fromfile(path)


def value_of(node: ast.expr):
    """What an expression of values says. Raises InputError for anything that would have to be run."""
    called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
    if called == 'dict' and not node.args and all(keyword.arg for keyword in node.keywords):
        return {keyword.arg: value_of(keyword.value) for keyword in node.keywords}
    if called == 'dict' and len(node.args) == 1 and isinstance(node.args[0], ast.Dict) and not node.keywords:
        return value_of(node.args[0])
    if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):        # as mmengine writes them
        return float(node.id)
    if isinstance(node, ast.Dict) and all(node.keys):
        return {ast.literal_eval(key): value_of(value) for key, value in zip(node.keys, node.values)}
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [value_of(each) for each in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Set):
        return {value_of(each) for each in node.elts}
    return ast.literal_eval(node)


def parse_config(text: str, source: str | Path) -> Config:
    """The config of a finished training from its text, as mmengine writes it: values, nothing of which is run.

    Args:
        source: what an error calls it.

    Raises:
        InputError: it is more than names and values, or one of its types is none of those that configs are made of.
    """
    settings = {}
    try:
        for statement in ast.parse(text).body:
            if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
                raise ValueError(f'line {statement.lineno}')
            settings[statement.targets[0].id] = value_of(statement.value)
    except (AttributeError, SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f'{source} holds more than names and values, so it is not read as data') from error
    if 'custom_imports' in settings:
        raise InputError(f'{source} has custom_imports, so it is not read as data')
    check_types(settings, source)
    return Config(settings)


def check_types(settings, source: str | Path) -> None:
    """Raises InputError where a ``type`` in settings from elsewhere names what is in no registry: mmengine would call it."""
    if isinstance(settings, (list, tuple)):
        for each in settings:
            check_types(each, source)
    if isinstance(settings, dict):
        kind = settings.get('type')
        if isinstance(kind, str) and '.' in kind and not is_registered(kind):
            raise InputError(f'{source}: type={kind!r} is in no registry')
        for each in settings.values():
            check_types(each, source)


def registries() -> list[Registry]:
    """All of mmengine's, mmpretrain's and this package's."""
    import mmengine.registry
    import mmpretrain.registry

    import mmcrrcd.registry
    return [each for module in (mmengine.registry, mmpretrain.registry, mmcrrcd.registry) for each in vars(module).values()
            if isinstance(each, Registry)]


def is_registered(kind: str) -> bool:
    """Is a name with dots that of a registered class or function, or ``<scope>.<name>``, which is looked for nowhere else?"""
    if kind.split('.')[0] not in PACKAGES:
        return False
    found = get_object_from_string(kind)
    return found is None and kind.count('.') == 1 or any(found is each for registry in registries()
                                                         for each in registry.module_dict.values())
