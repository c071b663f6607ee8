"""Configs from files: programs in Python, which are trusted, and the texts of finished trainings, which are read as data.

A config is a program, and the names in it can lead to any program that is installed. What a training writes into its work
directory needs neither: assignments of numbers, texts, lists and ``dict(...)``, and types from a few libraries.
"""
import ast
import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import mmengine.config.config
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.utils import get_object_from_string
from torch import nn

from mmcrrcd.errors import InputError, with_kind

PACKAGES = ('mmcrrcd', 'mmpretrain', 'mmengine', 'mmcv', 'torch', 'torchvision')
NETWORKS = ('mmcrrcd.models.', 'mmcv.', 'mmengine.model.', 'torch.nn.modules.', 'torchvision.models.',      # others read files
            *(f'mmpretrain.models.{part}.' for part in ('backbones', 'classifiers', 'heads', 'losses', 'necks', 'utils')))
FETCHING = {'HuggingFaceClassifier', 'TimmClassifier', 'TIMMBackbone'}      # may ask the network for more than weights
STEPS = {'CenterCrop', 'EfficientNetCenterCrop', 'Pad', 'Resize', 'ResizeEdge'}      # taken from a config that nobody named
RUN_ON_LOADING = ('.pkl', '.pickle', '.yml', '.yaml')      # lists of images by such names are run where mmengine loads them


def own_root() -> Path:
    """The folder that holds this package's ``configs`` and ``tools``: in an installed package, or the clone."""
    package = Path(__file__).resolve().parent
    return package.parent if (package.parent / 'setup.py').is_file() else package / '.mim'


def own_config(name: str) -> Path:
    """The file of ``mmcrrcd::custom/student_16px.py``. Raises FileNotFoundError where there is none; one line."""
    path = own_root() / 'configs' / name.removeprefix('mmcrrcd::')
    if not path.is_file():
        raise FileNotFoundError(f'there is no config {name}: {own_root() / "configs"} has ' + (
            'none of that name' if (own_root() / 'configs').is_dir() else 'none at all: install the package again'))
    return path


@contextmanager
def own_configs() -> Iterator[None]:
    """In the block mmengine finds this package's configs wherever it is installed. Configs of both forms may then begin with
    one: ``_base_ = 'mmcrrcd::custom/student_16px.py'``, and ``from mmcrrcd.configs.custom.student_16px import *`` under
    ``read_base()``. By itself it knows OpenMMLab's packages only, and no base of the other form. It looks for those by
    ``pkg_resources``, which setuptools 82 no longer has.
    """
    module, path_of = mmengine.config.config, Config.__dict__['_get_cfg_path']
    before = module.get_installed_path, module.is_installed
    with TemporaryDirectory() as folder:
        def text_of(base: str, filename: str) -> tuple[str, str | None]:
            if not base.startswith('mmcrrcd::'):
                return path_of.__func__(base, filename)
            text = Path(folder, f'{len(list(Path(folder).iterdir()))}.py')
            Config.fromfile(own_config(base), format_python_code=False).dump(text)
            return str(text), None

        def root_of(package: str) -> str:
            if not (spec := find_spec(package)):
                raise ModuleNotFoundError(f'the package {package} is not installed')
            return str(own_root() if package == 'mmcrrcd' else Path(spec.origin).parent)

        module.is_installed, module.get_installed_path = (lambda package: find_spec(package) is not None), root_of
        Config._get_cfg_path = staticmethod(text_of)
        try:
            yield
        finally:
            (module.get_installed_path, module.is_installed), Config._get_cfg_path = before, path_of


def read_config(path: str | Path) -> Config:
    """The config at ``path``, a Python file: a program, which is run. ``mmcrrcd::custom/student_16px.py`` is this package's.

    mmengine takes YAML and JSON, too, but would run what such data name as code, so these are refused.

    Raises:
        FileNotFoundError: there is none.
        InputError: it is no Python file.
    """
    path = own_config(path) if str(path).startswith('mmcrrcd::') else path
    if not Path(path).is_file():
        raise FileNotFoundError(f'there is no config {path}')
    if Path(path).suffix != '.py':
        raise InputError(f'{path} is no config: configs are Python files, in .py')
    try:
        with own_configs():
            return Config.fromfile(path)
    except InputError:
        raise
    except Exception as error:                           # a program can raise anything
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = f'; mmengine copies it to {gettempdir()}, where there is no room' if full else ''
        raise InputError(f'{where_in_config(error, path)}: {with_kind(error)}{hint}') from error


def where_in_config(error: BaseException, path: str | Path) -> str:
    """The file and line of a config, or of one of its bases, that an error is from."""
    if isinstance(error, SyntaxError) and error.filename and error.filename != '<unknown>':
        return f'{error.filename}, line {error.lineno}'
    last = str(path)
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.endswith('.py') and Path(frame.filename).is_file() and frame.name == '<module>' and frame.lineno:
            if Path(frame.filename).resolve() == Path(path).resolve() or 'configs' in Path(frame.filename).parts:
                last = f'{frame.filename}, line {frame.lineno}'
    if isinstance(error, SyntaxError) and error.lineno:
        last = f'{path}, line {error.lineno}'
    return last


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


def read_values(text: str, source: str | Path) -> Config:
    """The settings in a config as mmengine writes it (``Config.dump``): values, nothing of which is run.

    No part of them may be built before :func:`check_types`, :func:`check_network` or :func:`check_steps` has seen it.

    Args:
        source: what an error calls it.

    Raises:
        InputError: it is more than names and values.
    """
    settings = {}
    try:
        for statement in ast.parse(text).body:
            if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
                raise ValueError(f'line {statement.lineno}')
            settings[statement.targets[0].id] = value_of(statement.value)
        if '_base_' in settings:
            raise ValueError('_base_')
    except (AttributeError, SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f'{source} holds more than names and values, so it is not read as data') from error
    return Config(settings, cfg_text=text, filename=str(source))


def parse_config(text: str, source: str | Path) -> Config:
    """:func:`read_values` of a config of which any part may be built.

    Raises:
        InputError: it is more than names and values, or one of its types is none of those that configs are made of.
    """
    settings = read_values(text, source)
    if 'custom_imports' in settings:
        raise InputError(f'{source} has custom_imports, so it is not read as data')
    check_types(settings.to_dict(), source)
    return settings


def read_text(path: str | Path) -> str:
    """A config's text. Bytes that are no UTF-8 are replaced: where they are more than a comment, reading says what is wrong.

    Raises:
        InputError: it is no file, or cannot be read.
    """
    try:
        if Path(path).is_file():                         # a pipe would be waited for
            return Path(path).read_text(encoding='utf-8', errors='replace')
        reason = 'it is no file'
    except OSError as error:
        reason = error.strerror
    raise InputError(f'{path} cannot be read: {reason}')


def nested(settings) -> Iterator[dict]:
    """All dicts in nested settings."""
    if isinstance(settings, dict):
        yield settings
        settings = list(settings.values())
    for each in settings if isinstance(settings, (list, tuple)) else ():
        yield from nested(each)


def kind(settings: dict) -> str:
    """The bare name of a type, which is a class or a path; empty where there is none."""
    found = settings.get('type', '')
    return (found if isinstance(found, str) else getattr(found, '__name__', '')).split('.')[-1]


def preprocessor_of(cfg: Config) -> dict:
    """Settings of the data preprocessor: the model's own, or the config's; empty where there are none."""
    return (cfg.get('model') or {}).get('data_preprocessor') or cfg.get('data_preprocessor') or {}


def check_types(settings, source: str | Path) -> None:
    """Raises InputError where building settings from elsewhere could call what is in no registry: mmengine imports and calls
    any name.
    """
    for part in nested(settings):
        if 'type' in part and known(part['type']) is None:
            raise InputError(f'{source}: type={part["type"]!r} is in no registry')
        for key in ('_scope_', 'default_scope'):
            if part.get(key) is not None and part[key] not in PACKAGES:
                raise InputError(f'{source}: {key}={part[key]!r} is none of {", ".join(PACKAGES)}')
        for key, value in part.items():
            if isinstance(value, str) and value.endswith(RUN_ON_LOADING):
                raise InputError(f'{source}: {key}={value!r} may hold code, so it is not loaded')


def registries() -> list[Registry]:
    """All of mmengine's, mmpretrain's and this package's, filled."""
    import mmengine.registry
    import mmpretrain.registry

    import mmcrrcd.registry
    found = [each for module in (mmcrrcd.registry, mmpretrain.registry, mmengine.registry) for each in vars(module).values()
             if isinstance(each, Registry)]
    for each in found:
        each.import_from_location()
    return found


def known(kind) -> object | None:
    """The class or function that a ``type`` names, where it is registered or a network of a known library; else None."""
    if not isinstance(kind, str):
        return None
    package, dot, name = kind.rpartition('.')
    if dot and package.split('.')[0] not in PACKAGES:
        return None
    everything = registries()
    found = get_object_from_string(kind) if dot else None
    if found is None:                                    # a name, or <scope>.<name>, which is looked for nowhere else
        named = (each.module_dict[name] for each in everything if name in each.module_dict)
        return None if '.' in package else next(named, None)
    registered = any(found is each for registry in everything for each in registry.module_dict.values())
    return found if registered or is_network(found) else None


def is_network(found) -> bool:
    """Is it a class of networks, or of parts of them?"""
    return isinstance(found, type) and issubclass(found, nn.Module)


def check_network(settings: dict, source: str | Path) -> None:
    """Raises InputError where the network that ``settings`` describe is not one of known libraries."""
    for part in nested(settings):
        found = known(part['type']) if 'type' in part else nn.Identity
        if not is_network(found) or not found.__module__.startswith(NETWORKS) or found.__name__ in FETCHING:
            raise InputError(f'{source}: {part["type"]!r} is no network of {", ".join(PACKAGES)}, and from a folder no other '
                             'code is run')
    check_types(settings, source)


def check_steps(steps: list[dict], source: str | Path) -> None:
    """Raises InputError where a pipeline has other transforms than :data:`STEPS`."""
    for part in nested(steps):
        *library, last = str(part.get('type', 'Pad')).split('.')
        if last not in STEPS or library and library[0] not in ('mmcv', 'mmpretrain'):
            raise InputError(f'{source}: the transform {part["type"]!r} is none of {", ".join(sorted(STEPS))}, and from a '
                             'folder no other is run')
    check_types(steps, source)


def without_training(settings):
    """The settings of a network without what only its training needs: augmentations, and where its first weights came from."""
    if isinstance(settings, dict):
        return {key: without_training(value) for key, value in settings.items() if key not in ('init_cfg', 'train_cfg')}
    return [without_training(each) for each in settings] if isinstance(settings, (list, tuple)) else settings


def short_types(value):
    """A part of a config with its types by their short names, ``ImageClassifier`` or ``mmcrrcd.ResNetCIFAR``."""
    if isinstance(value, dict):
        value = {key: short_types(each) for key, each in value.items()}
        kind = value.get('type')
        kind = get_object_from_string(kind) if isinstance(kind, str) and '.' in kind else kind
        if isinstance(kind, type):                       # else it is a short name already
            package = kind.__module__.split('.')[0]
            path = dict(mmengine='', mmcv='', mmpretrain='', mmcrrcd='mmcrrcd.').get(package, f'{kind.__module__}.')
            value['type'] = path + kind.__name__
        return value
    return [short_types(each) for each in value] if isinstance(value, (list, tuple)) else value
