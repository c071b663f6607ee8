"""Wrong settings: each name and each value of configs, in every kind of being wrong, typed to tools/train.py.

Each ends in one line that names it, before anything is trained; what may be meant trains to its end.
"""
import copy
import inspect
import math
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import tiny
from mmengine.registry import FUNCTIONS, MODELS, DefaultScope

from mmcrrcd.engine.settings import GIVEN, INSIDE, find
from mmcrrcd.engine.signatures import parameters
from mmcrrcd.models import losses
from mmcrrcd.registry import DATASETS
from tools import train as train_tool

from .child import new_folder, run
from .kills import HOOKS

FREE = {'objective', 'default_hooks', 'imports'}         # dicts whose keys are their author's
ANY_TEXT = {'default_scope', 'data_root', 'data_prefix', 'ann_file', 'teacher_checkpoint', 'name', 'prefix', 'filename_tmpl',
            'published_keys', 'out_dir', 'save_dir', 'verbose', 'mean_pattern', 'custom_cfg', 'num_digits', 'log_level',
            'best_model_path'}


def written(value) -> str:
    """A value as a config says it."""
    if isinstance(value, dict):
        return '{' + ', '.join(f'{key!r}: {written(each)}' for key, each in value.items()) + '}'
    if isinstance(value, (list, tuple)):
        inner = ', '.join(map(written, value))
        return f'[{inner}]' if isinstance(value, list) else f'({inner}{"," if len(value) == 1 else ""})'
    return f"float('{value}')" if isinstance(value, float) and not math.isfinite(value) else repr(value)


def class_of(part: dict, inside: str):
    """The class that a part of a config builds, None where none is found."""
    for registry in (INSIDE.get(inside), MODELS, DATASETS, FUNCTIONS, *everything()):
        if registry is not None and (found := find(part['type'], registry)) is not None:
            return found
    return None


def everything() -> list:
    from mmcrrcd.config import registries
    return registries()


def with_defaults(settings, inside: str = ''):
    """Settings with those that their classes of this package have, and nobody has set, where these are plain."""
    if isinstance(settings, (list, tuple)):
        return type(settings)(with_defaults(each, inside) for each in settings)
    if not isinstance(settings, dict):
        return settings
    settings = {key: with_defaults(each, key) for key, each in settings.items()}
    kind = class_of(settings, inside) if 'type' in settings else None
    if kind is not None and kind.__module__.startswith('mmcrrcd.') and (takes := parameters(kind)):
        for name, parameter in takes.items():
            if name not in settings and name not in GIVEN and isinstance(parameter.default, (bool, int, float, str)):
                settings[name] = parameter.default
    return settings


def places(settings, path: tuple = ()) -> Iterator[tuple]:
    """The paths of all values, of dicts and lists as well as of what is in them."""
    for key, value in settings.items() if isinstance(settings, dict) else enumerate(settings):
        yield (*path, key)
        if isinstance(value, dict) or isinstance(value, (list, tuple)) and any(isinstance(each, dict) for each in value):
            yield from places(value, (*path, key))


def at(settings, path: tuple):
    for key in path:
        settings = settings[key]
    return settings


def misspelt(name: str, draw: random.Random) -> str:
    """The name with two neighbors swapped, a letter left out, or one typed twice."""
    i = draw.randrange(max(len(name) - 1, 1))
    return draw.choice([name[:i] + name[i + 1:i + 2] + name[i] + name[i + 2:], name[:i] + name[i + 1:],
                        name[:i] + name[i] + name[i:]])


def wrong_values(value, parameter, key, draw: random.Random) -> Iterator[tuple[str, object, bool]]:
    """(kind, wrong value, must it be refused?) for a value of a config."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    annotation = str(getattr(parameter, 'annotation', ''))
    takes_text = 'str' in annotation or value is None
    if number or isinstance(value, bool):
        yield 'a text for a number', draw.choice(['many', 'no', 'None', '']), not takes_text
        yield 'a dict for a number', dict(a=1), True
        yield 'None', None, False
    if isinstance(value, bool):
        yield 'a number for yes or no', draw.choice([2, -1, 0.5]), False
    if number:
        yield 'below zero', draw.choice([-1, -3]) if isinstance(value, int) else -abs(value or 0.5), False
        yield 'zero', 0, False
        yield 'not finite', draw.choice([math.nan, math.inf, -math.inf]), True
        if key not in ('max_epochs', 'max_iters'):       # which are meant, and take their time
            yield 'huge', draw.choice([10 ** 9, 10 ** 18]) if isinstance(value, int) else 1e30, False
        yield 'a list for a number', [value], False
    if isinstance(value, int) and number:
        yield 'a fraction', value + 0.5, 'float' not in annotation and key in ('max_epochs', 'batch_size', 'seed')
    if isinstance(value, str) and key != 'type':
        yield 'an unknown word', 'nonsense', key not in ANY_TEXT
        yield 'a number for a text', 7, key not in ANY_TEXT
        yield 'a list for a text', ['nonsense'], True
    if isinstance(value, dict):
        yield 'a number for a section', 3, True
        yield 'a text for a section', 'nonsense', True
        yield 'a list for a section', [3], True
        yield 'an empty section', {}, False
        yield 'None for a section', None, False
    if isinstance(value, (list, tuple)):
        yield 'a text in a list', [*value[:-1], 'nonsense'] if len(value) else ['nonsense'], True
        yield 'an empty list', [], False
        yield 'a longer list', [*value, *value[-1:]], False
        yield 'a number for a list', -3, False
    if key == 'type' and isinstance(value, str):
        yield 'a misspelt class', f'{value[:-2]}{value[-1]}', True
        yield 'a class of another kind', draw.choice([each for each in ('ReLU', 'SGD', 'CustomDataset') if each != value]), True
        yield 'a function of Python', draw.choice(['os.getcwd', 'builtins.print', 'math.sqrt']), True
        yield 'a number for a class', 7, True


def changed(settings: dict, path: tuple, value=None, new_key=None, remove: bool = False) -> dict:
    """A copy with another value, name, or without it."""
    settings = copy.deepcopy(settings)
    part = at(settings, path[:-1])
    if isinstance(part, tuple):
        return changed(settings, path[:-1], tuple(value if i == path[-1] else each for i, each in enumerate(part)))
    if remove:
        del part[path[-1]]
    elif new_key is not None:
        items = [(new_key if key == path[-1] else key, each) for key, each in part.items()]
        part.clear()
        part.update(items)
    else:
        part[path[-1]] = value
    return settings


def train_with(settings: dict, path: tuple, value, must: bool, base: Path, root: Path) -> str | None:
    """What is wrong with how a training with these settings ends."""
    with new_folder(root) as folder:
        shutil.copytree(base, folder, dirs_exist_ok=True)
        (folder / 'run.py').write_text('\n'.join(f'{key} = {written(each)}' for key, each in settings.items()))
        end = run(lambda: train_tool.main(['run.py', '--work-dir', 'out']), folder)
        if problem := end.problem(*(('line', ) if must else ('line', 'done'))):
            return problem
        if end.how == 'done':
            return None
        names = [str(key) for key in path if isinstance(key, str) and len(key) > 1] + [str(value)]
        parts = [at(settings, path[:i]) for i in range(len(path)) if not isinstance(at_or_none(settings, path[:i]), type(None))]
        names += [str(part['type']).split('.')[-1] for part in parts if isinstance(part, dict) and 'type' in part]
        said = [name for name in names if name and (name in end.said or name.removesuffix('_cfg') in end.said)]
        if not said and 'the loss is' not in end.said:
            return f'the line does not name it: {end.said}'
        if list((folder / 'out').glob('*.pth')) and 'is not finite' not in end.said and 'the loss is' not in end.said:
            return f'it is said after the training: {end.said}'
        return None


def at_or_none(settings, path: tuple):
    try:
        return at(settings, path)
    except (KeyError, IndexError, TypeError):
        return None


def cases_of(name: str, settings: dict, base: Path, root: Path, seed: int, within: tuple = ()) -> Iterator:
    """All wrong settings of one config, of one part of it where ``within`` says so."""
    draw = random.Random(f'{seed} {name}')
    whole = at(settings, within)
    for path in ((*within, *each) for each in places(whole)):
        key, part, value = path[-1], at(settings, path[:-1]), at(settings, path)
        where = f'{name}: {".".join(map(str, path))}'
        kind_of = class_of(part, str(path[-2]) if len(path) > 1 else '') if isinstance(part, dict) and 'type' in part else None
        takes = (parameters(kind_of) if kind_of is not None else None) or {}

        def case(changed_settings: dict, wrong, must: bool, path=path) -> Callable[[], str | None]:
            return partial(train_with, changed_settings, path, wrong, must, base, root)

        if isinstance(key, str) and len(key) > 2 and (len(path) < 2 or path[-2] not in FREE or isinstance(path[-2], int)):
            new = misspelt(key, draw)
            if new not in part and new != key:
                yield 'a misspelt name', f'{where} -> {new}', case(changed(settings, path, new_key=new), new, True)
        if isinstance(key, str):
            yield 'a missing setting', where, case(changed(settings, path, remove=True), key, False)
        for kind, wrong, must in wrong_values(value, takes.get(key), key, draw):
            yield kind, f'{where} = {str(wrong)[:40]}', case(changed(settings, path, wrong), wrong, must)


def losses_of_objectives() -> dict[str, dict]:
    """A valid entry of an objective for each loss of this package."""
    needed = dict(num_samples=tiny.IMAGES, num_classes=tiny.CLASSES, num_negatives=8, weight=0.5,
                  paraphraser_epochs=0)
    found = {}
    for name in losses.__all__:
        kind = getattr(losses, name)
        if inspect.isclass(kind) and name not in ('DistillLoss', 'RelationContrastLoss'):
            takes = parameters(kind) or {}
            given = {key: value for key, value in needed.items() if key in takes or key == 'weight'}
            found[name] = dict(type=f'mmcrrcd.{name}', **given)
    return found


def cases(root: Path, seed: int) -> Iterator[tuple[str, str, Callable[[], str | None]]]:
    """(kind, name, case) of all wrong settings."""
    base = root / 'base'
    base.mkdir(parents=True)
    tiny.write_teacher(base / 'teacher.pth')
    tiny.write_folder(base / 'train', 0)
    tiny.write_folder(base / 'val', 1)
    crrcd = partial(tiny.crrcd, Path('teacher.pth'))

    def plain(cfg) -> dict:
        settings = cfg.to_dict()
        for name in ('experiment_name', 'work_dir', 'test_dataloader', 'test_evaluator', 'test_cfg'):        # of no training
            settings.pop(name)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return with_defaults(settings)

    default_hooks = dict(timer=dict(type='IterTimerHook'), logger=dict(type='LoggerHook', interval=2),
                         param_scheduler=dict(type='ParamSchedulerHook'), sampler_seed=dict(type='DistSamplerSeedHook'))
    cfg = tiny.config('', crrcd(), epochs=1, custom_hooks=HOOKS, env_cfg=dict(cudnn_benchmark=False),
                      auto_scale_lr=dict(enable=False, base_batch_size=8), resume=False, load_from=None)
    cfg.default_hooks.update(default_hooks)
    cfg.optim_wrapper.clip_grad = dict(max_norm=5.)
    first = plain(cfg)
    yield from cases_of('in memory', first, base, root, seed)
    val = tiny.pipeline_loader(Path('val'), training=False)
    pipeline = plain(tiny.config(
        '', crrcd(), epochs=1, custom_hooks=HOOKS, train_dataloader=tiny.pipeline_loader(Path('train'), True),
        val_dataloader=val, test_dataloader=val, val_evaluator=dict(type='Accuracy', topk=(1, )),
        test_evaluator=dict(type='Accuracy', topk=(1, ))))
    for within in ('train_dataloader', 'val_dataloader', 'val_evaluator'):
        yield from cases_of('pipeline', pipeline, base, root, seed, (within, ))
    iterations = dict(first, train_cfg=dict(by_epoch=False, max_iters=3, val_interval=3),
                      param_scheduler=dict(type='CosineAnnealingLR', by_epoch=False, T_max=3, eta_min=0.001, begin=0, end=3),
                      custom_hooks=HOOKS[:1] + HOOKS[2:], train_dataloader=dict(
                          first['train_dataloader'], sampler=dict(type='InfiniteSampler', shuffle=True)))
    iterations['default_hooks'] = dict(first['default_hooks'])
    iterations['default_hooks']['checkpoint'] = dict(first['default_hooks']['checkpoint'], by_epoch=False, interval=3)
    for within in ('train_cfg', 'param_scheduler'):
        yield from cases_of('by iterations', iterations, base, root, seed, (within, ))
    for name, entry in losses_of_objectives().items():
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            entry = with_defaults(entry)
        of_loss = changed(first, ('model', 'objective'), dict(x=entry))
        yield from cases_of(name, of_loss, base, root, seed, ('model', 'objective', 'x'))
