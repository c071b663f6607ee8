"""The config of a run: a pair, a method of configs/baselines/, a schedule, put together.

For small images of SVHN, CIFAR-100 and Tiny ImageNet it is one of configs/low_resolution/, for faces one of configs/face/.
"""
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.config import Config

from mmcrrcd.config import kind
from mmcrrcd.datasets.faces import list_folders, list_images
from mmcrrcd.errors import InputError
from mmcrrcd.registry import DATASETS, MODELS

from .figure3 import ABLATIONS, LEARNED, OWN_KD

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs'
SCHEDULES = ('cifar_240e', 'paper_35e')
FIRST_SEED = 5
BASELINES = sorted(path.stem for path in (CONFIGS / 'baselines').glob('*.py'))
OF_THE_PAIR = ('student', 'teacher', 'teacher_checkpoint', 'data_preprocessor', 'input_size')
DKD_BETA = dict(resnet56_resnet20=2, resnet110_resnet32=2, wrn40_2_wrn16_2=6, wrn40_2_wrn40_1=6, vgg13_vgg8=6)     # else 8
PAIR = 'resnet56', 'vgg8'                                # the config of a pair that has none begins with this one's


class Recipe(NamedTuple):
    """What all runs of one table have in common.

    ``epochs`` is the length of the student's training where it is not the schedule's: all else changes in proportion. A first
    stage of a method comes on top. ``views``: of the teacher cache; 0 for the teacher itself.
    """
    schedule: str = SCHEDULES[0]
    epochs: int | None = None
    resolution: int | None = None
    amp: bool = False
    views: int | str = 0

    def label(self) -> str:
        """The end of the names of records and folders."""
        parts = [f'{self.resolution}px'] if self.resolution else []
        parts.append(self.schedule + (f'_in_{self.epochs}e' if self.epochs else ''))
        parts += ['amp'] if self.amp else []
        return '__'.join(parts + ([f'views{self.views}'] if self.views else []))


def load(path: str) -> Config:
    """A config of configs/ with the names of types in place of the types, so that it can be changed and written."""
    return Config(Config.fromfile(CONFIGS / f'{path}.py').to_dict())


def of_pair(teacher: str, student: str) -> Config:
    """The config of CRRCD for this pair on CIFAR-100; where configs/crrcd/ has none, with networks of configs/_base_/."""
    if (CONFIGS / 'crrcd' / f'{teacher}_{student}_cifar100.py').is_file():
        return load(f'crrcd/{teacher}_{student}_cifar100')
    cfg, networks = load(f'crrcd/{"_".join(PAIR)}_cifar100'), load('_base_/networks')
    for name in (teacher, student):
        if name not in networks or 'backbone' not in networks[name]:
            raise InputError(f'configs/_base_/networks.py has no network {name}')
    cfg.model.teacher, cfg.model.student = networks[teacher], networks[student]
    for network in (cfg.model.teacher, cfg.model.student):
        network.head.num_classes = 100
    cfg.teacher_config = f'configs/teachers/{teacher}_cifar100.py'
    cfg.model.teacher_checkpoint = f'work_dirs/{teacher}_cifar100'
    return cfg


def without_teacher(cfg: Config) -> None:
    """Leaves the student alone, in place."""
    kept = {key: cfg.model[key] for key in ('student', 'data_preprocessor', 'input_size') if key in cfg.model}
    cfg.model = dict(type='mmcrrcd.Distiller') | kept
    cfg.pop('teacher_config')


def compose(method: str, pair: tuple[str, str], recipe: Recipe) -> Config:
    """The pair's config with the method's model settings and, in proportion, its schedule. 'student' is the student-only
    baseline, 'crrcd_learned' CRRCD with both F of Eq. 1 learned.
    """
    if method == 'teacher':
        return load(f'teachers/{pair[0]}_cifar100')
    cfg = of_pair(*pair)
    model, plain = cfg.model, (cfg.train_cfg.max_epochs, cfg.param_scheduler.milestones)
    if method == 'student':
        without_teacher(cfg)
    elif method == 'crrcd_learned':
        model.update(LEARNED)
    elif method != 'crrcd':
        if method not in BASELINES:
            raise InputError(f'there is no method {method}: student, crrcd, crrcd_learned, {", ".join(BASELINES)}')
        baseline = load(f'baselines/{method}')
        settings = {key: value for key, value in baseline.model.items() if key not in OF_THE_PAIR}
        cfg.model = {key: model[key] for key in OF_THE_PAIR if key in model} | settings
        if baseline.model.get('teacher_checkpoint') is None:
            cfg.model.teacher_checkpoint = None
        cfg.train_cfg.max_epochs, cfg.param_scheduler = baseline.train_cfg.max_epochs, baseline.param_scheduler
        of_the_networks(cfg, method, pair, recipe)
    if recipe.resolution:
        cfg.model.data_preprocessor.resolution = recipe.resolution
    return timed(cfg, plain, recipe)


def of_the_networks(cfg: Config, method: str, pair: tuple[str, str], recipe: Recipe) -> None:
    """Constants of the published code that depend on the networks, in place."""
    if method == 'sskd' and recipe.schedule == SCHEDULES[0] and cfg.optim_wrapper.optimizer.lr == 0.01:
        head, gamma = cfg.model.head_epochs, 5           # of SSKD's command.sh: the teacher's head has 0.05 all the same
        cfg.param_scheduler += [dict(type=cfg.param_scheduler[0].type, by_epoch=True, milestones=[0], gamma=gamma),
                                dict(type=cfg.param_scheduler[0].type, by_epoch=True, milestones=[head], gamma=1 / gamma)]
    if method == 'dkd':
        cfg.model.objective.dkd.beta = DKD_BETA.get('_'.join(pair), 8)
    if method == 'ft' and not pair[1].startswith(('resnet', 'wrn')):
        cfg.param_scheduler = cfg.param_scheduler[0]     # without the paraphraser's lower learning rate


def low(method: str, pair: tuple[str, str], recipe: Recipe, data: str) -> Config:
    """A config of configs/low_resolution/ at the recipe's resolution: 'crrcd' as it stands, 'crrcd_learned', 'kd' without its
    relational loss, 'student' the student-only baseline, 'teacher' the teacher's own. The student of a pair that ends in
    '_upsampled' sees the small images upsampled.
    """
    student, *upsampled = pair[1].split('_')
    if method == 'teacher':
        return shortened(load(f'teachers/{pair[0]}_{data}'), recipe)
    cfg = load(f'low_resolution/{pair[0]}_{student}_{data}_8px')
    if method in ('kd', 'crrcd_learned'):
        cfg.model.update(OWN_KD if method == 'kd' else LEARNED)
    elif method == 'student':
        without_teacher(cfg)
    cfg.model.data_preprocessor.update(resolution=recipe.resolution, upsample=bool(upsampled))
    return shortened(cfg, recipe)


def ablated(name: str, pair: tuple[str, str], recipe: Recipe) -> Config:
    """CRRCD's config of the pair with the settings of that name in experiments/figure3.py."""
    cfg = compose('crrcd', pair, recipe)
    cfg.model.update(ABLATIONS[name])
    return cfg


def face(method: str, pair: tuple[str, str], recipe: Recipe, data: str) -> Config:
    """A config of configs/face/ for these training data, as it stands but for the recipe and what :func:`counted` counts;
    'teacher' is the teacher itself, 'naive' the same on 16×16 px upsampled.
    """
    teacher, (student, *upsampled) = pair[0], pair[1].split('_')
    end = '_'.join(['16px', *([method] if method not in ('student', 'crrcd', 'crrcd_learned') else []), *upsampled])
    if method in ('teacher', 'naive'):
        cfg = load(f'face/{teacher}_{data}')
        if method == 'naive':
            cfg.model.data_preprocessor.update(resolution=16, upsample=True)
    else:
        cfg = load(f'face/{student}_{data}_{end}' if method == 'student' else f'face/{teacher}_{student}_{data}_{end}')
    if method == 'crrcd_learned':
        cfg.model.update(LEARNED)
    return shortened(counted(cfg), recipe)


def further(config: str, cfg: Config, checkpoint: Path) -> Config:
    """The training of another face config, from where that of ``cfg`` ended: its network, and how it sees the images. It is
    shortened as that was.
    """
    new = counted(load(config))
    new.train_cfg.max_epochs, new.param_scheduler = cfg.train_cfg.max_epochs, cfg.param_scheduler
    head = cfg.model.student.head | dict(num_classes=new.model.student.head.num_classes)
    start = dict(type='Pretrained', checkpoint=str(checkpoint), prefix='student')
    new.model.student = cfg.model.student | dict(head=head, init_cfg=start)
    if cfg.model.data_preprocessor.get('upsample'):      # small images are brought to the size that they are upsampled to
        new.model.data_preprocessor, new.model.input_size = cfg.model.data_preprocessor, cfg.model.input_size
        new.train_dataloader.dataset.image_size = cfg.model.input_size
    new.optim_wrapper.type = cfg.optim_wrapper.type
    return paired(new, cfg.randomness.seed)


@cache
def people_and_images(folder: Path) -> tuple[int, int]:
    """How many there are in a folder of a folder for each person."""
    images = [number for name in list_folders(folder) if (number := len(list_images(folder / name)))]
    return len(images), sum(images)


def counted(cfg: Config) -> Config:
    """``cfg`` for as many people and images as its data have: copies of CASIA-WebFace differ. Of LFW it has a part."""
    data = cfg.train_dataloader.dataset
    if data.type.endswith('FaceFolder') and 'exclude' not in data and Path(data.data_root).is_dir():      # else told later
        people, images = people_and_images(Path(data.data_root))
        for network in ('student', 'teacher'):
            if network in cfg.model:
                cfg.model[network].head.num_classes = people
        if 'crd' in cfg.model.get('objective', {}):
            cfg.model.objective.crd.num_samples = images
    return cfg


def shortened(cfg: Config, recipe: Recipe) -> Config:
    """``cfg`` with its own schedule and the recipe's ``epochs``, ``amp`` and ``views``."""
    return timed(cfg, (cfg.train_cfg.max_epochs, cfg.param_scheduler.milestones), recipe._replace(schedule=SCHEDULES[0]))


def teacher_cache_fits(model: dict) -> bool:
    """Does a method need no more of the teacher than its embedding and logits, of the images as they are?"""
    if 'teacher' not in model or not MODELS.get(model.type).can_use_cache:
        return False
    needs = [MODELS.get(loss.type).needs for loss in model.get('objective', {}).values()]
    return set().union(*needs) <= {'embedding', 'logits'}


def use_cache(cfg: Config, views: int | str) -> None:
    """Reads the teacher's answers from a cache of so many views, 'all' or 0 for none, in place, where the method allows it."""
    if views and teacher_cache_fits(cfg.model):
        cfg.model.teacher_cache = dict(views=views)


def timed(cfg: Config, plain: tuple[int, list[int]], recipe: Recipe) -> Config:
    """Brings ``cfg`` from a schedule of ``plain`` epochs and milestones, and a first stage before it, to the recipe's."""
    (epochs, milestones), total = plain, cfg.train_cfg.max_epochs
    stage = total - epochs
    if recipe.schedule != SCHEDULES[0]:
        other = load(f'_base_/schedules/{recipe.schedule}')
        cfg.train_dataloader.batch_size, cfg.optim_wrapper = other.train_dataloader.batch_size, other.optim_wrapper
        new_epochs, new_milestones = other.train_cfg.max_epochs, other.param_scheduler.milestones
    else:
        new_epochs, new_milestones = plain
    if recipe.epochs:
        new_milestones = [round(milestone * recipe.epochs / new_epochs) for milestone in new_milestones]
        new_epochs = recipe.epochs
    new_stage = max(1, round(stage * new_epochs / epochs)) if stage else 0
    before = [0, *(stage + epoch for epoch in (0, *milestones, epochs))]
    after = [0, *(new_stage + epoch for epoch in (0, *new_milestones, new_epochs))]

    def moved(epoch: float) -> int:
        return round(float(np.interp(epoch, before, after)))

    cfg.train_cfg.max_epochs = moved(total)
    for scheduler in cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]:
        scheduler.milestones = [moved(milestone) for milestone in scheduler.milestones]
    for key in cfg.model.keys() - OF_THE_PAIR:
        cfg.model[key] = rescheduled(key, cfg.model[key], moved, total)
    if recipe.amp:
        cfg.optim_wrapper.type = 'mmcrrcd.BF16OptimWrapper'
    use_cache(cfg, recipe.views)
    return cfg


def rescheduled(key: str, value, moved: Callable[[float], int], total: int):
    """``value`` with the epochs in it moved: lengths of stages, and points (epoch, weight).

    A loss that is off at the end is off for one epoch at least, where there are two.
    """
    if isinstance(value, dict):
        return {name: rescheduled(name, part, moved, total) for name, part in value.items()}
    if key.endswith('_epochs'):
        return moved(value)
    if isinstance(value, (list, tuple)) and value and all(isinstance(point, (list, tuple)) for point in value):
        last = max(1, moved(total) - 1)
        return [(min(moved(epoch), last) if epoch < total else moved(epoch), weight) for epoch, weight in value]
    return value


def paired(cfg: Config, seed: int) -> Config:
    """A copy of ``cfg`` for a seed: every method of it begins with the same student and sees the same crops and flips."""
    cfg = Config(cfg.to_dict())
    cfg.randomness.seed = seed
    for hook in cfg.custom_hooks:
        if kind(hook) == 'EpochSeedHook':
            hook.type = 'mmcrrcd.PairedSeedHook'
    return cfg


def count_samples(cfg: Config) -> None:
    """Gives the losses with a place for each training image their number, in place."""
    banks = [loss for loss in cfg.model.get('objective', {}).values() if 'num_samples' in loss]
    if banks:
        images = len(DATASETS.build(cfg.train_dataloader.dataset))
        for loss in banks:
            loss.num_samples = images


def of_study(setting: NamedTuple, recipe: Recipe, options: dict) -> Config:
    """The config of a training of a study; ``options`` are settings of it by their dotted names."""
    recipe = recipe._replace(schedule='paper_35e', epochs=setting.epochs, resolution=setting.resolution)
    cfg = compose(setting.method, (setting.teacher, setting.student), recipe._replace(views=0))
    cfg.train_dataloader.batch_size = setting.batch
    cfg.optim_wrapper.optimizer.update(lr=setting.lr, fused=True)         # the same numbers, a tenth of a small student's step
    if setting.images_per_class or setting.holdout:
        part = dict(type='mmcrrcd.SubsetArrays', dataset=cfg.train_dataloader.dataset, holdout=setting.holdout or 0)
        cfg.train_dataloader.dataset = part | dict(images_per_class=setting.images_per_class)
        count_samples(cfg)
        if setting.holdout:
            cfg.val_dataloader.dataset = part | dict(part='holdout')
            cfg.test_dataloader = cfg.val_dataloader
    schedulers = cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]
    if setting.warmup:
        schedulers.append(dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=setting.warmup,
                               convert_to_iter_based=True))
    cfg.param_scheduler = schedulers
    if setting.gamma != 1 or setting.method.startswith('crrcd'):
        cfg.model.backbone_gradient = setting.gamma
    cfg.train_cfg.val_interval = cfg.default_hooks.checkpoint.interval = max(1, setting.epochs // 5)
    cfg.default_hooks.checkpoint.save_best = None
    cfg.merge_from_dict(options)
    use_cache(cfg, recipe.views)
    return cfg
