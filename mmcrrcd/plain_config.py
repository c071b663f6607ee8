"""Configs from elsewhere, read so that nothing in them is run.

A config is a program, and the names in it can lead to any program that is installed. What a training writes into its work
directory needs neither: assignments of numbers, texts, lists and ``dict(...)``, and types from a few libraries.
"""
import ast
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.utils import get_object_from_string
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import nn

from mmcrrcd.errors import InputError
from mmcrrcd.registry import MODELS

LIBRARIES = {'mmcrrcd': MODELS, 'mmpretrain': MMPRETRAIN_MODELS, 'mmengine': MMENGINE_MODELS, 'mmcv': MMENGINE_MODELS,
             'torch': None, 'torchvision': None}
FETCHING = {'HuggingFaceClassifier', 'TimmClassifier'}     # may ask the network for more than weights
STEPS = {'CenterCrop', 'EfficientNetCenterCrop', 'Pad', 'Resize', 'ResizeEdge'}      # taken from a config that nobody named


def evaluate(node: ast.expr):
    """The value of an expression of literals and ``dict(...)``. Raises ValueError for any other."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == 'dict' and not node.args and all(keyword.arg for keyword in node.keywords):
            return {keyword.arg: evaluate(keyword.value) for keyword in node.keywords}
        if node.func.id == 'float' and len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and not node.keywords:
            return float(node.args[0].value)               # inf and nan have no literal
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [evaluate(each) for each in node.elts]
        return tuple(values) if isinstance(node, ast.Tuple) else values
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(key): evaluate(value) for key, value in zip(node.keys, node.values)}
    return ast.literal_eval(node)


def read_plain(path: str | Path) -> Config:
    """A config as mmengine writes it (``Config.dump``), without running it.

    Raises:
        InputError: it is a program: it has imports, calls, a base, or is no Python at all.
    """
    settings = {}
    try:
        for statement in ast.parse(Path(path).read_text(encoding='utf-8')).body:
            if not (isinstance(statement, ast.Assign) and [type(target) for target in statement.targets] == [ast.Name]):
                raise ValueError('a statement that is no assignment')
            settings[statement.targets[0].id] = evaluate(statement.value)
        if '_base_' in settings:
            raise ValueError('_base_')
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise InputError(f'{path} is a program, and only a config of plain values is read from a folder: name it as the config '
                         'if you trust it') from error
    return Config(settings, filename=str(path))


def types_in(settings) -> Iterator[str]:
    """All values of ``type`` in nested settings."""
    if isinstance(settings, dict):
        if 'type' in settings:
            yield settings['type']
        settings = list(settings.values())
    for each in settings if isinstance(settings, (list, tuple)) else ():
        yield from types_in(each)


def is_module_of_a_library(name) -> bool:
    """Is it a network, or a part of one, from the libraries that this package stands on?"""
    if not isinstance(name, str) or name.split('.')[-1] in FETCHING:
        return False
    library, dot, rest = name.partition('.')
    if not dot:
        return any(name in registry.module_dict for registry in (MODELS, MMPRETRAIN_MODELS, MMENGINE_MODELS))
    if library not in LIBRARIES:
        return False
    registry = LIBRARIES[library]
    if registry is not None and rest in registry.module_dict:
        return True
    found = get_object_from_string(name)
    return isinstance(found, type) and issubclass(found, nn.Module)


def without_training(settings):
    """The settings of a network without what only its training needs: augmentations, and where its first weights came from."""
    if isinstance(settings, dict):
        return {key: without_training(value) for key, value in settings.items() if key not in ('init_cfg', 'train_cfg')}
    return [without_training(each) for each in settings] if isinstance(settings, (list, tuple)) else settings


def check_network(settings: dict, path: str | Path) -> None:
    """Raises InputError where the network that ``settings`` of the config ``path`` describe is not one of known libraries."""
    import mmcrrcd.models  # noqa: F401  registers
    import mmpretrain.models  # noqa: F401
    for name in types_in(settings):
        if not is_module_of_a_library(name):
            raise InputError(f'{path}: {name!r} is no network of {", ".join(LIBRARIES)}, and from a folder no other code is '
                             'run: name the config if you trust it')


def check_steps(steps: list[dict], path: str | Path) -> None:
    """Raises InputError where a pipeline of the config ``path`` has other transforms than :data:`STEPS`."""
    for name in types_in(steps):
        *library, last = str(name).split('.')
        if last not in STEPS or library and library[0] not in ('mmcv', 'mmpretrain'):
            raise InputError(f'{path}: the transform {name!r} is none of {", ".join(sorted(STEPS))}, and from a folder '
                             'no other is run: name the config if you trust it')


def short_types(value):
    """A part of a config with its types by their short names, ``ImageClassifier`` or ``mmcrrcd.ResNetCIFAR``."""
    if isinstance(value, dict):
        value = {key: short_types(each) for key, each in value.items()}
        kind = value.get('type')
        kind = get_object_from_string(kind) if isinstance(kind, str) else kind
        if isinstance(kind, type):                       # else it is a short name already
            package = kind.__module__.split('.')[0]
            path = dict(mmengine='', mmcv='', mmpretrain='', mmcrrcd='mmcrrcd.').get(package, f'{kind.__module__}.')
            value['type'] = path + kind.__name__
        return value
    return [short_types(each) for each in value] if isinstance(value, (list, tuple)) else value
