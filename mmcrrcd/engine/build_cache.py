"""From a config whose model has a ``teacher_cache`` to a training that reads its teacher's answers from disk."""
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.dist import barrier, broadcast_object_list, get_rank, get_world_size, is_main_process
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader

from mmcrrcd.checkpoint import find_checkpoint, read_network
from mmcrrcd.config import kind
from mmcrrcd.datasets.images import whole_batch
from mmcrrcd.datasets.replay import EveryView, ReplayedViews, check_views, number_of_views
from mmcrrcd.errors import InputError
from mmcrrcd.models.algorithms.distiller import NO_MIXTURES, Distiller
from mmcrrcd.models.networks import linear_classifier
from mmcrrcd.models.preprocessor import PairPreprocessor, check_reads_cache
from mmcrrcd.models.teachers.cache import ARRAYS, CacheWriter, TeacherCache, number_of_blocks, rows_of, size_in_bytes
from mmcrrcd.models.teachers.fingerprint import digest, digest_of_data, digest_of_weights, named, pipelines_in
from mmcrrcd.registry import MODELS
from mmcrrcd.structures import NetworkOutput

from .settings import WAIT

VIEWS = 16                   # where a config does not say how many (docs/speed.md)
ROOT = Path('work_dirs/teacher_cache')
SAMPLED = 32                 # answers that are computed again each time a cache is used
PIECE = dict(cpu=128, cuda=1000)                         # images that the teacher sees at once while the cache is built
TOLERANCE = dict(float32=5e-3, bfloat16=5e-2)            # of answers computed again, as a share of the largest


def views_of_text(text: str) -> int | str:
    """``views`` from a command line: 'all', or a number. Raises ValueError for other words."""
    return text if text == 'all' else int(text)


class Source:
    """What the answers of a config's teacher are computed from: data, preprocessor and the network.

    Args:
        cfg: of the training.
        views, seed: see :class:`ReplayedViews`; 'all' for each possible crop and flip.
        with_teacher: is the network at hand?

    ``about`` says what answers depend on, as values of JSON's kinds.

    Raises:
        InputError: this config cannot have a cache; one line.
    """

    def __init__(self, cfg: Config, views: int | str, seed: int, with_teacher: bool):
        check_views(views, seed)
        self.device = torch.device(get_device())
        self.preprocessor = MODELS.build(cfg.model.get('data_preprocessor') or dict(type='BaseDataPreprocessor'))
        check_reads_cache(self.preprocessor)
        dataset = cfg.train_dataloader.dataset
        self.replayed = ReplayedViews(dataset, 1 if views == 'all' else views, seed)
        self.in_memory = self.replayed.images is not None
        if views == 'all' and not self.in_memory:
            raise InputError("views='all' is for the crops and flips of the in-memory pipeline; for mmpretrain's say how many")
        self.number = number_of_views(views, self.preprocessor.padding or 0, self.preprocessor.flip)
        self.workers = 0 if self.in_memory else cfg.train_dataloader.get('num_workers', 0)
        self.bfloat16 = kind(cfg.optim_wrapper) == 'BF16OptimWrapper'
        self.about = dict(
            views=views, seed=seed, data=digest_of_data(self.replayed.dataset),
            pipeline=self.augmentation() if self.in_memory else pipelines_in(dataset),
            normalization={name: getattr(self.preprocessor, name).flatten().tolist() for name in ('mean', 'std')} |
            dict(to_rgb=self.preprocessor.to_rgb),
            precision='bfloat16' if self.bfloat16 else 'float32')
        if with_teacher:
            self.model = without_objective(cfg.model, self.preprocessor)
            if self.model.mixes:
                raise InputError(NO_MIXTURES)
            self.teacher = self.model.teacher            # before its batch norms are folded
            self.model.load_teacher()
            self.model.to(self.device)
            self.preprocessor.replay(views, len(self.replayed), seed)
            checkpoint = cfg.model.get('teacher_checkpoint')
            weights = read_network(checkpoint) if checkpoint else self.model.teacher.state_dict()
            weights = digest_of_weights(weights, self.model.teacher)
            self.about['teacher'] = dict(config=named(cfg.model.teacher), weights=weights)

    def augmentation(self) -> dict:
        """That of the in-memory pipeline."""
        scale = self.preprocessor.crop_scale
        crops = dict(crop_scale=list(scale)) if scale else dict(padding=self.preprocessor.padding or 0)
        return crops | dict(flip=self.preprocessor.flip)

    def outputs(self, batches: list[list[int]]) -> Iterator[NetworkOutput]:
        """The teacher's answers to each batch of images, counted as in :class:`EveryView`."""
        loader = DataLoader(EveryView(self.replayed, self.number), batch_sampler=batches, num_workers=self.workers,
                            timeout=WAIT if self.workers else 0,
                            collate_fn=whole_batch if self.in_memory else pseudo_collate)
        for data in loader:
            yield self.ask(self.preprocessor(data, training=True)['inputs'].high)

    @torch.no_grad()
    def ask(self, images: Tensor) -> NetworkOutput:
        """The teacher's output for images (N, C, H, W), piece by piece; without feature maps."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else nullcontext():
            pieces = [self.model.forward_teacher(piece) for piece in images.split(PIECE[self.device.type])]
        values = {name: None if getattr(pieces[0], name) is None else torch.cat([getattr(piece, name) for piece in pieces])
                  for name in ARRAYS}
        return pieces[0]._replace(**values, feature_maps=())

    def shape(self) -> dict:
        """How many numbers there are of what."""
        output = next(self.outputs([[0, 1]]))
        return dict(views=self.number, images=len(self.replayed), image_size=list(output.image_size),
                    **{name: None if getattr(output, name) is None else getattr(output, name).shape[1] for name in ARRAYS})

    def numbers_of(self, block: int) -> list[int]:
        """Of the images of a block."""
        view, first, end = rows_of(block, len(self.replayed))
        return list(range(view * len(self.replayed) + first, view * len(self.replayed) + end))


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Trainings that need the same answers take turns; of one with several processes the first stands in line for all."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'the folder {folder} cannot be made: {error.strerror}') from error
    path = folder.with_name(f'{folder.name}.lock')
    if path.is_symlink():                                # is none of ours, and would be followed
        path.unlink(missing_ok=True)
    lock, said = FileLock(path), False
    while True:
        held = [False]
        if is_main_process():
            try:
                lock.acquire(timeout=10)
                held = [True]
            except Timeout:
                pass
        broadcast_object_list(held)                      # often, so that the others do not wait too long for one message
        if held[0]:
            break
        if not said:
            print_log(f'another process is computing {folder}: waiting for it', 'current')
            said = True
    try:
        yield
    finally:
        if is_main_process():
            lock.release()


def tracked(blocks: Iterable, total: int, name: str) -> Iterator:
    """``blocks`` with a line of progress, and the time left, on stderr."""
    columns = TextColumn('{task.description}'), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not is_main_process()) as progress:
        yield from progress.track(blocks, total, description=f"The teacher's answers, {name}")


def build(source: Source, folder: Path, shape: dict) -> None:
    """Computes the answers that are missing and puts the folder in its place; several processes share the work.

    Raises:
        InputError: it cannot be written; one line.
    """
    writer = CacheWriter(folder, source.about, shape, linear_classifier(source.teacher))
    failure = [None]
    try:
        if is_main_process():
            writer.prepare()
    except OSError as error:
        failure = [error.strerror]
    broadcast_object_list(failure)
    try:
        if failure[0]:
            raise OSError(0, failure[0])
        writer.open()
        done = [writer.finished() if is_main_process() else None]
        broadcast_object_list(done)
        missing = [block for block in range(number_of_blocks(shape)) if block not in done[0]][get_rank()::get_world_size()]
        outputs = source.outputs([source.numbers_of(block) for block in missing])
        for output, block in zip(tracked(outputs, len(missing), f'{source.number} views'), missing):      # asked to its end
            writer.write(block, output)
        writer.close()
        barrier()
        if is_main_process():
            writer.finish()
        barrier()
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): the teacher's answers take "
                         f'{size_in_bytes(shape) / 1e6:.0f} MB; say --folder, or teacher_cache.folder, for another place'
                         ) from error


def check_same(cache: TeacherCache, about: dict) -> None:
    """Raises InputError where the answers in a folder are of something else than what ``about`` says."""
    names = dict(views='of other views', seed='drawn by another seed', data='of other training data',
                 pipeline='of another augmentation', normalization='of images normalized by other numbers',
                 precision='of another precision', teacher='of another teacher')
    for name, value in about.items():
        if (there := cache.about.get(name)) != value:
            said = f': {there} there, {value} here' if name not in ('data', 'teacher') else ''
            raise InputError(f"the answers in {cache.folder} are {names[name]}{said}; name another folder, or delete this one")


def check_sample(source: Source, cache: TeacherCache) -> None:
    """Computes a few answers again. Raises InputError where they differ by more than rounding."""
    total = source.number * len(source.replayed)
    numbers = np.unique(np.linspace(0, total - 1, SAMPLED).astype(int))
    again = next(source.outputs([numbers.tolist()]))
    view, index = (torch.from_numpy(part) for part in np.divmod(numbers, len(source.replayed)))
    stored = cache(view, index, torch.device('cpu'))
    for name in cache.arrays:
        here, there = getattr(again, name).cpu(), getattr(stored, name)
        if not (here - there).abs().max() <= TOLERANCE[source.about['precision']] * there.abs().max():
            raise InputError(f"the teacher's {name}, computed again for {len(numbers)} images, are not those in "
                             f'{cache.folder}: delete the folder, and they are computed anew')


def teacher_is_there(model: dict) -> bool:
    """Can the network of a model's config be built with its weights?"""
    if model.get('teacher') is None:
        return False
    try:
        return model.get('teacher_checkpoint') is None or bool(find_checkpoint(model.teacher_checkpoint))
    except FileNotFoundError:
        return False


def without_objective(model: dict, preprocessor: dict | PairPreprocessor) -> Distiller:
    """Student and teacher of a model's config, whose teacher is to be asked."""
    return Distiller(model['student'], model['teacher'], model.get('teacher_checkpoint'),
                     input_size=model.get('input_size', 32), data_preprocessor=preprocessor)


def find_or_build(cfg: Config) -> TeacherCache:
    """The answers that ``cfg.model.teacher_cache`` names, computed where they are missing; checked.

    ``dict(views=16, seed=0, folder=None)``: without ``folder`` they are in ``work_dirs/teacher_cache``, under a name that says
    what they are of. A ``folder`` that is there needs no network.

    Raises:
        InputError: they are of something else, or cannot be computed; one line.
    """
    settings = dict(cfg.model.teacher_cache)
    folder, views, seed = (settings.pop(name, None) for name in ('folder', 'views', 'seed'))
    if settings:
        raise InputError(f'teacher_cache has the settings views, seed and folder, got {", ".join(settings)}')
    cache = TeacherCache(folder) if folder and Path(folder, 'manifest.json').exists() else None
    if cache:                                            # what is not said is as it is there
        views, seed = (cache.about[name] if value is None else value for name, value in (('views', views), ('seed', seed)))
    there = teacher_is_there(cfg.model)
    if not there and not cache:
        what = f'{folder} holds none' if folder else 'no folder of them is named'
        raise InputError(f"the teacher's answers cannot be computed, as its weights are missing, and {what}")
    source = Source(cfg, VIEWS if views is None else views, 0 if seed is None else seed, there)
    if not cache:
        shape = source.shape()
        name = Path(cfg.model.get('teacher_checkpoint') or 'teacher').stem
        folder = Path(folder or ROOT / f'{name}_{source.about["views"]}views_{digest([source.about, shape])[:8]}')
        with turn(folder):
            if not (folder / 'manifest.json').exists():
                build(source, folder, shape)
        cache = TeacherCache(folder)
    check_same(cache, source.about)
    if there:
        check_sample(source, cache)
    else:
        print_log(f'{cache.folder}: the network is not here, so none of its answers was computed again', 'current',
                  logging.WARNING)
    return cache


def use_teacher_cache(cfg: Config) -> None:
    """Makes a training of ``cfg`` read its teacher's answers where its model has a ``teacher_cache``; builds what is missing.

    A config that a training has left, in which this was done already, may be given, too.
    """
    if not cfg.model.get('teacher_cache'):
        return
    if kind(cfg.train_dataloader.dataset) == 'ReplayedViews':
        cfg.train_dataloader.dataset = cfg.train_dataloader.dataset.dataset
        cfg.custom_hooks = [hook for hook in cfg.custom_hooks if kind(hook) != 'ReplayHook']
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        cache = find_or_build(cfg)
    print_log(f"the teacher's answers are read from {cache.folder}: {cache.num_images} images, views: {cache.views}", 'current')
    read_from(cfg, cache)


def read_from(cfg: Config, cache: TeacherCache) -> None:
    """Makes a training of ``cfg`` read these answers, in place."""
    cfg.model.teacher_cache = dict(folder=str(cache.folder))
    if cache.views != 'all':
        cfg.train_dataloader.dataset = dict(type='mmcrrcd.ReplayedViews', dataset=cfg.train_dataloader.dataset,
                                            views=cache.views, seed=cache.about['seed'])
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='mmcrrcd.ReplayHook')]
