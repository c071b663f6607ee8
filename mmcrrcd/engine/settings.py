"""The names and values of a config, looked at before anything is built: what nothing takes would be lost in silence."""
import inspect
import logging
import math
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import (DATA_SAMPLERS, DATASETS, FUNCTIONS, HOOKS, LOG_PROCESSORS, LOOPS, METRICS, MODELS,
                               OPTIM_WRAPPERS, OPTIMIZERS, PARAM_SCHEDULERS, TRANSFORMS, VISUALIZERS, DefaultScope, Registry)
from mmengine.runner import (EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, Priority, Runner, TestLoop, ValLoop,
                             get_priority)
from torch import nn
from torch.utils.data import DataLoader

from mmcrrcd.config import kind, nested, preprocessor_of
from mmcrrcd.errors import InputError, is_number, nearest

from .signatures import PLAIN, alternatives, check_value, hints, parameters

TOP = frozenset(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'} | {
    'activation_checkpointing', 'compile', 'custom_imports', 'data_root', 'efficient_conv_bn_eval', 'find_unused_parameters',
    'model_wrapper_cfg', 'runner_type', 'sync_bn', 'teacher_config'}
PLAIN_TOP = {name: parameter for name, parameter in inspect.signature(Runner.__init__).parameters.items()
             if name in ('work_dir', 'load_from', 'resume', 'log_level', 'default_scope', 'experiment_name')}
LOADERS = {'train_dataloader', 'val_dataloader', 'test_dataloader'}
INSIDE = dict(pipeline=TRANSFORMS, transforms=TRANSFORMS, dataset=DATASETS, datasets=DATASETS, sampler=DATA_SAMPLERS,
              batch_sampler=DATA_SAMPLERS, collate_fn=FUNCTIONS, worker_init_fn=FUNCTIONS, optimizer=OPTIMIZERS)
BUILT = INSIDE.keys() | {'student', 'teacher', 'backbone', 'neck', 'head', 'data_preprocessor'}         # from dicts with a type
GIVEN = {'self', 'runner', 'dataloader', 'evaluator', 'params', 'optimizer', 'args', 'kwargs'}        # by mmengine
HOOK_NAMES = {'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint', 'visualization'}
MODULES = {'activation_checkpointing', 'efficient_conv_bn_eval'}
NAMES = dict(randomness={'seed', 'diff_rank_seed', 'deterministic'}, auto_scale_lr={'enable', 'base_batch_size'},
             env_cfg={'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'})

PARAMWISE = {'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult', 'dwconv_decay_mult', 'dcn_offset_lr_mult',
             'bypass_duplicate', 'custom_keys'}
MOST_WORKERS = 4096
WAIT = 600                                               # seconds for a worker or a process that does not answer
YES_OR_NO = {'enable', 'deterministic', 'diff_rank_seed', 'cudnn_benchmark'}


def check_built(value, where: str, several: bool = False) -> None:
    """Raises InputError for what is neither a dict with a type nor something built; ``several``: nor a list of these."""
    if several and isinstance(value, (list, tuple)):
        for i, each in enumerate(value):
            check_built(each, f'{where}.{i}', several)
    elif isinstance(value, (*PLAIN, list, tuple)):
        raise InputError(f'{where} is a dict{", or a list of dicts" if several else ""}, got {value!r}')
    elif isinstance(value, dict) and 'type' not in value:
        raise InputError(f'{where} lacks its type, got {dict(value)!r}')


def find(kind, registry: Registry):
    """The class or function that a ``type`` names; None where there is none, which building it says better."""
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    try:
        if registry is FUNCTIONS:                        # as the Runner looks for them
            return registry.get(kind)
        with registry.switch_scope_and_registry(None) as scoped:
            return scoped.get(kind)
    except Exception:                                    # a library that is not installed, say
        return None


def registered(registry: Registry) -> set[str]:
    """All names in a registry, those above it, and those below it."""
    while registry.parent is not None:
        registry = registry.parent
    names, left = set(), [registry]
    while left:
        each = left.pop()
        names |= each.module_dict.keys()
        left += each.children.values()
    return names


def check_part(part, where: str, registry: Registry, default=None, more: frozenset | set = frozenset()) -> None:
    """Raises InputError where a dict that is built names a setting that its class does not have; so with those in it.

    Args:
        default: the class where there is no ``type``.
        more: settings that are taken out before the class is built.
    """
    target = find(part.get('type', default), registry)
    if 'priority' in more and 'priority' in part:
        try:
            get_priority(part['priority'])
        except (KeyError, TypeError, ValueError):
            raise InputError(f'{where}.priority is a number from 0 to 100, or one of {", ".join(Priority.__members__)}, got '
                             f'{part["priority"]!r}') from None
    takes = None if target is None else parameters(target)
    ours = str(getattr(target, '__module__', '')).startswith('mmcrrcd.')
    for key, value in part.items():
        if key in more or key in ('type', '_scope_', '_delete_'):
            continue
        if takes is not None and key not in takes:
            known = set(takes) - GIVEN | set(more)
            raise InputError(f'{where}: {target.__name__} has no setting {key!r}{nearest(key, known)}')
        if key == 'loss_weight' and isinstance(value, (int, float)) and (not math.isfinite(value) or value < 0):
            raise InputError(f'{where}.{key} is a number from 0 on, got {value!r}')
        if key == 'neck' and isinstance(value, (list, tuple)):           # of mmpretrain may be several, one after the other
            check_built(value, f'{where}.{key}', several=True)
        elif takes is not None:
            check_value(value, takes[key], f'{where}.{key}', ours)
            if key in BUILT and isinstance(value, dict) and dict in alternatives(takes[key].annotation):
                check_built(value, f'{where}.{key}')
            if key in ('pipeline', 'transforms', 'datasets') and isinstance(value, (list, tuple)):
                check_built(value, f'{where}.{key}', several=True)
        if key == 'objective' and isinstance(value, dict):
            for name, loss in value.items():
                if isinstance(loss, dict):
                    check_part(loss, f'{where}.objective.{name}', MODELS, more={'weight'})
        elif not str(key).endswith('_cfg'):              # these are read in many ways
            for inner, name in parts(value, f'{where}.{key}'):
                check_part(inner, name, INSIDE.get(key, registry))


def parts(value, where: str) -> Iterator[tuple[dict, str]]:
    """The dicts with a ``type`` that ``value`` is, or has in a list, with their names."""
    if isinstance(value, dict) and 'type' in value:
        yield value, where
    for i, each in enumerate(value if isinstance(value, (list, tuple)) else ()):
        if isinstance(each, dict) and 'type' in each:
            yield each, f'{where}.{i}'


def check_count(part: dict, where: str, *keys: str, least: int = 1) -> None:
    """Raises InputError where a setting is no whole number from ``least`` on."""
    for key in keys:
        value = part.get(key)
        if value is not None and (not is_number(value, whole=True) or value < least):
            raise InputError(f'{where}.{key} is a whole number from {least} on, got {value!r}')


def check_names(part: dict, where: str, known) -> None:
    """Raises InputError for a setting that is not ``known``, with the nearest right name."""
    for key in part:
        if key not in known:
            raise InputError(f'{where} has no setting {key!r}{nearest(key, known)}')


def check_loader(loader: dict, where: str) -> None:
    """Raises InputError for settings that a data loader has not."""
    known = set(inspect.signature(DataLoader).parameters) | {'num_batch_per_epoch'}
    check_names(loader, where, known)
    for key, value in loader.items():
        if key in BUILT and not (key == 'collate_fn' and callable(value)):
            check_built(value, f'{where}.{key}')
        if key in hints(DataLoader.__init__):
            check_value(value, inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY,
                                                 annotation=hints(DataLoader.__init__)[key]), f'{where}.{key}', False)
        if key in ('shuffle', 'drop_last', 'pin_memory', 'persistent_workers') and not isinstance(value, (bool, type(None))):
            raise InputError(f'{where}.{key} is True or False, got {value!r}')
        if key in ('collate_fn', 'worker_init_fn'):
            check_known(value, f'{where}.{key}', FUNCTIONS)
        for inner, name in parts(value, f'{where}.{key}'):
            check_part(inner, name, INSIDE.get(key, FUNCTIONS), more={'dataset'} if key.endswith('sampler') else ())
    if 'batch_size' in loader and loader['batch_size'] is None and not loader.get('batch_sampler'):
        raise InputError(f'{where}.batch_size is a whole number from 1 on, got None')
    check_count(loader, where, 'batch_size')
    if isinstance(loader.get('sampler'), dict):
        check_count(loader['sampler'], f'{where}.sampler', 'num_repeats')        # 0 would be an epoch without images
    check_count(loader, where, 'num_workers', least=0)
    if loader.get('timeout') and not loader.get('num_workers'):
        raise InputError(f'{where}.timeout is for workers, and num_workers=0: leave it out')
    if (loader.get('num_workers') or 0) > MOST_WORKERS:
        raise InputError(f'{where}.num_workers is at most {MOST_WORKERS}, got {loader["num_workers"]}')


def check_known(part, where: str, registry: Registry) -> None:
    """Raises InputError for a type that is not there, where mmengine would call what it did not find."""
    if isinstance(part, dict) and 'type' in part and find(part['type'], registry) is None:
        raise InputError(f'{where}: type={part["type"]!r} is in no registry of a {registry.name}'
                         + nearest(str(part['type']).split('.')[-1], registered(registry)))


def check_schedule(schedule: dict, where: str) -> None:
    """Raises InputError for milestones that are no epochs, and numbers by which a rate would be negative or not finite."""
    for key, value in schedule.items():
        if isinstance(value, (int, float)) and key != 'last_step' and (not math.isfinite(value) or value < 0):
            raise InputError(f'{where}.{key} is a number from 0 on, got {value!r}')
    milestones = schedule.get('milestones')
    if milestones is not None and (not isinstance(milestones, (list, tuple))
                                   or not all(is_number(each, whole=True) and each >= 0 for each in milestones)):
        raise InputError(f'{where}.milestones are whole numbers from 0 on, got {milestones!r}')


def check_paramwise(settings, where: str) -> None:
    """Raises InputError for what mmengine's default constructor of optimizers would not look at, or that is no number."""
    if not isinstance(settings, dict):
        raise InputError(f'{where} is a dict, got {settings!r}')
    check_names(settings, where, PARAMWISE)
    custom = settings.get('custom_keys') or {}
    if not isinstance(custom, dict) or not all(isinstance(each, dict) for each in custom.values()):
        raise InputError(f'{where}.custom_keys is a dict of dicts, as dict(head=dict(lr_mult=0.1)), got {custom!r}')
    for name, part in custom.items():
        check_names(part, f'{where}.custom_keys.{name}', {'lr_mult', 'decay_mult'})
    for part in (settings, *custom.values()):
        for name, value in part.items():
            if name.endswith('_mult') and not is_number(value):
                raise InputError(f'{where}: {name} is a number, got {value!r}')


def check_train_cfg(value: dict, key: str) -> None:
    """Raises InputError for a training whose length is not told in epochs or in iterations."""
    default = EpochBasedTrainLoop if value.get('by_epoch') else IterBasedTrainLoop
    if 'type' not in value and 'by_epoch' not in value:
        raise InputError('train_cfg says by_epoch=True (and max_epochs) or by_epoch=False (and max_iters)')
    check_part(value, key, LOOPS, default, set() if 'type' in value else {'by_epoch'})
    if not isinstance(value.get('by_epoch', True), bool):
        raise InputError(f'{key}.by_epoch is True or False, got {value["by_epoch"]!r}')


def check_optim_wrapper(value: dict, key: str) -> None:
    """Raises InputError for an optimizer that is not there, and for what it, or the clipping of gradients, does not take."""
    for inner, name in parts(value.get('optimizer'), f'{key}.optimizer'):
        check_known(inner, name, OPTIMIZERS)
        check_part(inner, name, OPTIMIZERS)
    if value.get('paramwise_cfg') is not None and 'constructor' not in value:
        check_paramwise(value['paramwise_cfg'], f'{key}.paramwise_cfg')
    clip = value.get('clip_grad')
    if isinstance(clip, dict):
        how = nn.utils.clip_grad_value_ if clip.get('type') == 'value' else nn.utils.clip_grad_norm_
        check_names(clip, f'{key}.clip_grad', set(inspect.signature(how).parameters) - {'parameters'} | {'type'})
        for name in clip.keys() & {'max_norm', 'clip_value'}:
            if not is_number(clip[name]) or clip[name] <= 0:
                raise InputError(f'{key}.clip_grad.{name} is a positive number, got {clip[name]!r}')


def check_default_hooks(value: dict, key: str) -> None:
    """Raises InputError for a hook that is none of mmengine's and has no type."""
    for name, hook in value.items():
        if name not in HOOK_NAMES and (not isinstance(hook, dict) or 'type' not in hook):
            raise InputError(f'{key} has no hook {name!r}{nearest(name, HOOK_NAMES | value.keys() - {name})}')
        if isinstance(hook, dict):
            if 'type' not in hook:
                raise InputError(f'{key}.{name} lacks its type, got {dict(hook)}')
            check_part(hook, f'{key}.{name}', HOOKS, more={'priority'})


def check_log_processor(value: dict, key: str) -> None:
    """Raises InputError for what mmengine looks at only when the first line is written."""
    custom = value.get('custom_cfg') or []
    if not isinstance(custom, (list, tuple)) or not all(isinstance(part, dict) for part in custom):
        raise InputError(f'{key}.custom_cfg is a list of dicts, got {custom!r}')
    for i, part in enumerate(custom):
        check_names(part, f'{key}.custom_cfg.{i}', {'data_src', 'method_name', 'window_size', 'log_name'})
        if part.get('window_size') not in ('epoch', 'global'):
            check_count(part, f'{key}.custom_cfg.{i}', 'window_size')


# Of a section that is built as it stands: registry, class where there is no type, settings that are taken out before.
SECTIONS = dict(
    model=(MODELS, None, ()), data_preprocessor=(MODELS, None, ()), visualizer=(VISUALIZERS, None, ()),
    val_cfg=(LOOPS, ValLoop, ()), test_cfg=(LOOPS, TestLoop, ()), log_processor=(LOG_PROCESSORS, LogProcessor, ()),
    optim_wrapper=(OPTIM_WRAPPERS, OptimWrapper, {'constructor', 'paramwise_cfg', 'optimizer'}))
CHECKS = dict.fromkeys(LOADERS, check_loader) | dict(
    train_cfg=check_train_cfg, optim_wrapper=check_optim_wrapper, default_hooks=check_default_hooks,
    log_processor=check_log_processor)
LEAST = dict(train_cfg=dict(max_epochs=1, max_iters=1, val_interval=1), log_processor=dict(window_size=1, num_digits=0),
             randomness=dict(seed=0), auto_scale_lr=dict(base_batch_size=1))             # of settings that are whole numbers


def check_section(key: str, value: dict) -> None:
    """Raises InputError for a setting in one part of a config that nothing takes, or that cannot be meant."""
    if key in SECTIONS:
        registry, default, more = SECTIONS[key]
        check_part(value, key, registry, default, more)
    if key in CHECKS:
        CHECKS[key](value, key)
    if key in NAMES:
        check_names(value, key, NAMES[key])
        for name in value.keys() & YES_OR_NO:
            if not isinstance(value[name], bool):
                raise InputError(f'{key}.{name} is True or False, got {value[name]!r}')
    for name, least in LEAST.get(key, {}).items():
        check_count(value, key, name, least=least)
    if key == 'randomness' and (value.get('seed') or 0) >= 2**32:        # of NumPy
        raise InputError(f'{key}.seed is less than 2**32, got {value["seed"]!r}')


LISTS = dict(custom_hooks=(HOOKS, {'priority'}), param_scheduler=(PARAM_SCHEDULERS, {'convert_to_iter_based'}),
             val_evaluator=(METRICS, ()), test_evaluator=(METRICS, ()))


def check_settings(cfg: Config) -> None:
    """Raises InputError where a config has a name that nothing takes, or a value that cannot be meant; before anything is
    built. Of its top level, which holds what the author likes, only names that are nearly one of mmengine's are refused.

    Example:
        >>> check_settings(Config(dict(trian_cfg=dict(by_epoch=True, max_epochs=1))))
        Traceback (most recent call last):
        mmcrrcd.errors.InputError: the config has no setting 'trian_cfg'; did you mean 'train_cfg'?
    """
    absent = {key for key in TOP if cfg.get(key) is None}
    for key in cfg:
        if key not in TOP and (near := nearest(key, absent, edits=1 if len(key) < 9 else 2)):
            raise InputError(f'the config has no setting {key!r}{near}')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        for key, value in cfg.items():
            if value is None:
                continue
            if key in LISTS:
                several = isinstance(value, dict) and 'type' not in value and key == 'param_scheduler'       # of optimizers
                for each in value.values() if several and value else [value]:
                    check_built(each, key, several=True)
                for part, where in parts(value, key):
                    check_part(part, where, LISTS[key][0], more=LISTS[key][1])
                    if key == 'param_scheduler':
                        check_schedule(part, where)
            elif key in MODULES:
                names = [value] if isinstance(value, str) else value
                if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
                    raise InputError(f"{key} is a list of names of the model's modules, got {value!r}")
            elif key in PLAIN_TOP:
                check_value(value, PLAIN_TOP[key], key, ours=True)
                if key == 'log_level' and not isinstance(logging.getLevelName(value), int):
                    raise InputError(f'log_level is a name as INFO or WARNING, got {value!r}')
            elif key in SECTIONS.keys() | CHECKS.keys() | NAMES.keys():
                if isinstance(value, dict):
                    check_section(key, value)
                elif isinstance(value, (*PLAIN, list, tuple)):
                    raise InputError(f'{key} is a dict, got {value!r}')


def pair_in(settings) -> dict | None:
    """The settings of the first ``ResolutionPair`` in a data set's config, or in those of the data sets in it."""
    pair = next((part for part in nested(settings) if kind(part) == 'ResolutionPair'), None)
    return pair and {key: value for key, value in pair.items() if key != 'type'}


def check_pairs(cfg: Config, *tests: str) -> None:
    """Raises InputError where the pipeline of the training makes the student's images and that of a test does not. The
    student would be tested on larger ones than it has learned from.
    """
    settings = preprocessor_of(cfg)
    train = (cfg.get('train_dataloader') or {}).get('dataset')
    if settings.get('resolution') is not None or train is None:
        return
    for name in tests:
        test = (cfg.get(name) or {}).get('dataset')
        if test is not None and pair_in(train) != pair_in(test):
            here, there = (f'ResolutionPair({", ".join(f"{k}={v!r}" for k, v in found.items())})' if found is not None else
                           'no ResolutionPair' for found in (pair_in(train), pair_in(test)))
            raise InputError(f'the pipeline of train_dataloader has {here} and that of {name} {there}, so the student would be '
                             'tested on other images than it learns from: say the same in both, or set '
                             'data_preprocessor.resolution')
