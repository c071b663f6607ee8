"""The config of a cell of the paper's tables: a pair of configs/crrcd/, a method of configs/baselines/, a schedule.

That of a point of its Figure 3 has settings of configs/ablations/ in place of the method. For small images of CIFAR-100, SVHN
and TinyImageNet it is one of configs/low_resolution/, for faces one of configs/face/.
"""
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.config import Config

from mmcrrcd.datasets.faces import list_folders, list_images

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
SCHEDULES = ('cifar_240e', 'paper_35e')
FIRST_SEED = 5
PAIRS = sorted(path.stem.removesuffix('_cifar100') for path in (CONFIGS / 'crrcd').glob('*_cifar100.py'))
BASELINES = sorted(path.stem for path in (CONFIGS / 'baselines').glob('*.py'))
FACES = ('webface', 'lfw')                               # data of configs/face/
OF_THE_PAIR = ('student', 'teacher', 'teacher_checkpoint', 'data_preprocessor', 'input_size')
DKD_BETA = dict(resnet56_resnet20=2, resnet110_resnet32=2, wrn40_2_wrn16_2=6, wrn40_2_wrn40_1=6, vgg13_vgg8=6)     # else 8


class Recipe(NamedTuple):
    """What all cells of one table have in common.

    ``epochs`` is the length of the student's training where it is not the schedule's: all else changes in proportion. A first
    stage of a method comes on top.
    """
    schedule: str = SCHEDULES[0]
    epochs: int | None = None
    resolution: int | None = None
    amp: bool = False

    def label(self) -> str:
        """The end of the names of files and folders."""
        pixels = f'{self.resolution}px__' if self.resolution else ''
        return f'{pixels}{self.schedule}' + (f'_in_{self.epochs}e' if self.epochs else '')


def load(path: str) -> Config:
    """A config of configs/ with the names of types in place of the types, so that it can be changed and written."""
    return Config(Config.fromfile(CONFIGS / f'{path}.py').to_dict())


def split(pair: str) -> tuple[str, str]:
    """Teacher and student of a pair of configs/crrcd/ by its name."""
    teacher = Path(load(f'crrcd/{pair}_cifar100').teacher_config).stem.removesuffix('_cifar100')
    return teacher, pair.removeprefix(f'{teacher}_')


def compose(method: str, pair: tuple[str, str], recipe: Recipe, seed: int = FIRST_SEED) -> Config:
    """The pair's config with the method's model settings and, in proportion, its schedule. 'student' is the student alone."""
    cfg = load(f'crrcd/{"_".join(pair)}_cifar100')
    model, plain = cfg.model, (cfg.train_cfg.max_epochs, cfg.param_scheduler.milestones)
    if method == 'student':
        cfg.model = dict(type='mmcrrcd.Distiller', student=model.student, data_preprocessor=model.data_preprocessor)
        cfg.pop('teacher_config')
    elif method != 'crrcd':
        baseline = load(f'baselines/{method}')
        settings = {key: value for key, value in baseline.model.items() if key not in OF_THE_PAIR}
        cfg.model = {key: model[key] for key in OF_THE_PAIR if key in model} | settings
        if baseline.model.get('teacher_checkpoint') is None:
            cfg.model.teacher_checkpoint = None
        cfg.train_cfg.max_epochs, cfg.param_scheduler = baseline.train_cfg.max_epochs, baseline.param_scheduler
        of_the_pair(cfg, method, pair, recipe)
    if recipe.resolution:
        cfg.model.data_preprocessor.resolution = recipe.resolution
    return timed(cfg, plain, recipe, seed)


def ablated(name: str, pair: tuple[str, str], recipe: Recipe) -> Config:
    """CRRCD's config of the pair with the settings of that name in configs/ablations/crrcd.py."""
    cfg = compose('crrcd', pair, recipe)
    cfg.model.update(load('ablations/crrcd').ablations[name])
    return cfg


def face(method: str, pair: tuple[str, str], recipe: Recipe, data: str = 'webface') -> Config:
    """A config of configs/face/ for these training data, as it stands but for ``epochs``, ``amp`` and what :func:`counted`
    counts; 'teacher' is the teacher itself, 'naive' on 16 pixels scaled up.
    """
    teacher, (student, *restored) = pair[0], pair[1].split('_')
    end = '_'.join(['16px', *([method] if method not in ('student', 'crrcd') else []), *restored])
    if method in ('teacher', 'naive'):
        cfg = load(f'face/{teacher}_{data}')
        if method == 'naive':
            cfg.model.data_preprocessor.update(resolution=16, restore=True)
    else:
        cfg = load(f'face/{student}_{data}_{end}' if method == 'student' else f'face/{teacher}_{student}_{data}_{end}')
    return shortened(counted(cfg), recipe)


def low(method: str, pair: tuple[str, str], recipe: Recipe, data: str) -> Config:
    """A config of configs/low_resolution/ at the recipe's resolution: 'crrcd' as it stands, 'kd' without its relational loss,
    'student' the student alone. The student of a pair that ends in '_restored' sees the small images scaled up.
    """
    student, *restored = pair[1].split('_')
    cfg = load(f'low_resolution/{pair[0]}_{student}_{data}_8px')
    if method == 'kd':
        cfg.model.beta = 0
    elif method == 'student':
        kept = {key: cfg.model[key] for key in ('student', 'data_preprocessor', 'input_size') if key in cfg.model}
        cfg.model = dict(type='mmcrrcd.Distiller') | kept
        cfg.pop('teacher_config')
    cfg.model.data_preprocessor.update(resolution=recipe.resolution, restore=bool(restored))
    return shortened(cfg, recipe)


def further(config: str, cfg: Config, checkpoint: Path, recipe: Recipe) -> Config:
    """The training of another face config, from where that of ``cfg`` ended: its network, and how it sees the images."""
    new = counted(load(config))
    head = cfg.model.student.head | dict(num_classes=new.model.student.head.num_classes)
    start = dict(type='Pretrained', checkpoint=str(checkpoint), prefix='student')
    new.model.student = cfg.model.student | dict(head=head, init_cfg=start)
    if cfg.model.data_preprocessor.get('restore'):       # small images are brought to the size that they are restored to
        new.model.data_preprocessor, new.model.input_size = cfg.model.data_preprocessor, cfg.model.input_size
        new.train_dataloader.dataset.image_size = cfg.model.input_size
    new = shortened(new, recipe)
    new.randomness.seed = cfg.randomness.seed
    return new


@cache
def people_and_images(folder: Path) -> tuple[int, int]:
    """How many there are in a folder of a folder for each person."""
    images = [number for name in list_folders(folder) if (number := len(list_images(folder / name)))]
    return len(images), sum(images)


def counted(cfg: Config) -> Config:
    """``cfg`` for as many people and images as its data have: copies of CASIA-WebFace differ. Of LFW it has a part."""
    data = cfg.train_dataloader.dataset
    folder = Path(data.data_root)
    if folder.is_dir() and 'exclude' not in data:        # where it is missing, that is said before anything is trained
        people, images = people_and_images(folder)
        for network in ('student', 'teacher'):
            if network in cfg.model:
                cfg.model[network].head.num_classes = people
        if 'crd' in cfg.model.get('objective', {}):
            cfg.model.objective.crd.num_samples = images
    return cfg


def of_the_pair(cfg: Config, method: str, pair: tuple[str, str], recipe: Recipe) -> None:
    """Constants of the published code that depend on the networks."""
    if method == 'sskd' and recipe.schedule == SCHEDULES[0] and cfg.optim_wrapper.optimizer.lr == 0.01:
        head, gamma = cfg.model.head_epochs, 5           # of SSKD's command.sh: the teacher's head has 0.05 all the same
        cfg.param_scheduler += [dict(type=cfg.param_scheduler[0].type, by_epoch=True, milestones=[0], gamma=gamma),
                                dict(type=cfg.param_scheduler[0].type, by_epoch=True, milestones=[head], gamma=1 / gamma)]
    if method == 'dkd':
        cfg.model.objective.dkd.beta = DKD_BETA.get('_'.join(pair), 8)
    if method == 'ft' and not pair[1].startswith(('resnet', 'wrn')):
        cfg.param_scheduler = cfg.param_scheduler[0]     # without the paraphraser's lower learning rate


def teacher_recipe(name: str, recipe: Recipe, data: str = 'cifar100') -> Config:
    """The teacher's own config for these data, as it stands but for ``epochs`` and ``amp``."""
    if data in FACES:
        return face('teacher', (name, ''), recipe, data)
    return shortened(load(f'teachers/{name}_{data}'), recipe)


def shortened(cfg: Config, recipe: Recipe) -> Config:
    """``cfg`` with its own schedule and the recipe's ``epochs`` and ``amp``."""
    plain = cfg.train_cfg.max_epochs, cfg.param_scheduler.milestones
    return timed(cfg, plain, Recipe(epochs=recipe.epochs, amp=recipe.amp), FIRST_SEED)


def timed(cfg: Config, plain: tuple[int, list[int]], recipe: Recipe, seed: int) -> Config:
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
    cfg.randomness.seed = seed
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
