"""A trial before training: a few images of the training and of the validation go the way that all others will."""
import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, ValLoop
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data._utils.fetch import _MapDatasetFetcher

from mmcrrcd.datasets.images import NO_LABEL
from mmcrrcd.datasets.transforms.resolution_pair import sides
from mmcrrcd.errors import InputError, nearest
from mmcrrcd.models.algorithms import Distiller
from mmcrrcd.structures import Pair

WRONG = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
IMAGES = 16


@contextmanager
def generators_kept() -> Iterator[None]:
    """After the block Python's, NumPy's and torch's generators, on every device, are where they were."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def first_line(error: BaseException) -> str:
    """The type of an error and the first line of what it says."""
    text = str(error).strip().splitlines()
    return f'{type(error).__name__}: {text[0]}' if text else type(error).__name__


def some_batch(loader: DataLoader, name: str, images: int):
    """A batch of images from all over the data, as the loader would make it, but in this process.

    Raises:
        InputError: data and ``collate_fn`` do not fit each other.
    """
    dataset = loader.dataset
    places = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(int).tolist()
    try:
        return _MapDatasetFetcher(dataset, True, loader.collate_fn, False).fetch(places)
    except InputError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, RuntimeError) as error:
        if any('failed to load' in str(each) for each in error.args):
            raise
        how = getattr(loader.collate_fn, 'func', loader.collate_fn)
        raise InputError(f'{name}: the collate_fn {getattr(how, "__name__", how)} makes no batch of samples of a '
                         f'{type(dataset).__name__}: {first_line(error)}') from error


def preprocess(model: nn.Module, batch, name: str, training: bool) -> dict:
    """``batch`` as the network sees it. Raises InputError where the preprocessor does not fit the data."""
    try:
        data = model.data_preprocessor(batch, training)
        if isinstance(model, Distiller) and (more := data.keys() - {'inputs', 'data_samples'}):
            raise InputError(f'{name}: the data_preprocessor {type(model.data_preprocessor).__name__} hands on {min(more)}, '
                             "and a Distiller takes inputs and data_samples: say dict(type='mmcrrcd.PairPreprocessor', ...)")
        return data
    except InputError:
        raise
    except WRONG as error:
        raise InputError(f'{name}: the data_preprocessor {type(model.data_preprocessor).__name__} cannot take a batch of this '
                         f'data set, pipeline and collate_fn: {first_line(error)}') from error


def check_sizes(model: Distiller, batch) -> None:
    """Raises InputError where the student's resolution, or the teacher's size, does not fit the training's images."""
    preprocessor = model.data_preprocessor
    images = batch['inputs'] if isinstance(batch, dict) else []
    height, width = images[0].shape[-2:] if len(images) else (0, 0)
    for name in ('resolution', 'train_resolutions'):
        given = getattr(preprocessor, name, None)
        for each in ([given] if name == 'resolution' else given) or []:
            if each is not None and height and (sides(each)[0] > height or sides(each)[1] > width):
                raise InputError(f'data_preprocessor.{name}: {each} is more than the {height} x {width} pixels of the '
                                 'training images')
    if model.has_teacher and height and (height, width) != sides(model.input_size):
        raise InputError(f'model.input_size is {model.input_size}, and the training images have {height} x {width} pixels: say '
                         f'input_size={height if height == width else (height, width)}')


def number_of_classes(model: nn.Module) -> int | None:
    """That of the student's head, None where it has none."""
    return getattr(getattr(getattr(model, 'student', model), 'head', None), 'num_classes', None)


def check_labels(model: nn.Module, dataset, name: str) -> None:
    """Raises InputError where a label is none of the classes' numbers."""
    classes, labels = number_of_classes(model), None
    if hasattr(dataset, 'get_gt_labels'):
        try:
            labels = np.asarray(dataset.get_gt_labels())
        except (KeyError, TypeError, ValueError):        # several labels for an image, or none
            return
    elif isinstance(getattr(dataset, 'labels', None), Tensor):
        labels = dataset.labels.cpu().numpy()
    if labels is None or classes is None or labels.dtype.kind not in 'iu':
        return
    labels = labels[labels != NO_LABEL]
    if not labels.size:
        return
    if labels.min() < 0 or labels.max() >= classes:
        where = getattr(dataset, 'ann_file', '') or getattr(dataset, 'data_root', '') or type(dataset).__name__
        raise InputError(f'{name}: labels in {where} go from {labels.min()} to {labels.max()}, and the network has {classes} '
                         f'classes, 0 to {classes - 1}')


def images_left(runner) -> int | None:
    """How many images of a process the last batch of an epoch has, where it has fewer than the others; else None.

    Raises:
        InputError: an epoch has no batch.
    """
    loader = runner.train_dataloader
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    if not by_epoch or not hasattr(loader.sampler, '__len__') or not loader.batch_size:
        return None
    if len(loader) == 0:
        raise InputError(f'train_dataloader has no batch: {len(loader.sampler)} images, batch_size={loader.batch_size} and '
                         f'drop_last={loader.drop_last}')
    return None if loader.drop_last else len(loader.sampler) % loader.batch_size or None


def check_last_batch(runner, model: nn.Module, batch) -> None:
    """Raises InputError where the last batch of an epoch is too small for a loss, or of one image for a batch norm.

    Args:
        batch: as the network sees it.
    """
    left = images_left(runner)
    if left is None or not isinstance(model, Distiller):
        return
    how = 'say train_dataloader.drop_last=True, or take another batch_size'
    for name, loss in model.losses.items():
        try:
            loss.check_batch(left * get_world_size())
        except InputError as error:
            raise InputError(f'the last batch of each epoch has size {left}: {name}: {error}; {how}') from error
    pair = batch['inputs']
    if left == 1 and isinstance(pair, Pair) and get_world_size() == 1:
        try:
            copy.deepcopy(model.student).train()(pair.low[:1])       # a copy, whose statistics may change
        except ValueError as error:
            if 'more than 1 value per channel' not in str(error):
                raise
            raise InputError(f'the last batch of each epoch has one image, of which a batch norm over maps of one pixel has no '
                             f'variance: {how}') from error


def try_training(runner, model: nn.Module) -> None:
    """A few images through data set, ``collate_fn`` and preprocessor, and the sizes of all batches. Raises InputError where
    they do not fit. Losses see their first batch in a moment.
    """
    loader = runner.train_dataloader
    images_left(runner)
    check_labels(model, loader.dataset, 'train_dataloader')
    batch = some_batch(loader, 'train_dataloader', min(loader.batch_size or IMAGES, IMAGES))
    if isinstance(model, Distiller):
        check_sizes(model, batch)
    data = preprocess(model, batch, 'train_dataloader', training=True)
    if isinstance(model, Distiller):
        check_last_batch(runner, model, data)


def best_metrics(runner) -> list[str]:
    """The metrics that decide which checkpoints are the best, where the config names them."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            best = hook.save_best or []
            return [each for each in ([best] if isinstance(best, str) else best) if each != 'auto']
    return []


def check_topk(metrics, classes: int | None) -> None:
    """Raises InputError where a metric asks for more classes than there are."""
    for metric in metrics:
        topk = getattr(metric, 'topk', None) or ()
        most = max(topk if isinstance(topk, (list, tuple)) else [topk], default=0)
        if classes is not None and most > classes:
            raise InputError(f'val_evaluator: topk={most}, and the network has {classes} classes')


def try_validation(runner, model: nn.Module) -> None:
    """One batch through the network and the evaluator. Raises InputError where they do not fit, and where ``save_best`` is
    none of the metrics; metrics of your own, which may need all images, are only given the batch.
    """
    loader, evaluator = runner.val_dataloader, runner.val_loop.evaluator
    check_labels(model, loader.dataset, 'val_dataloader')
    check_topk(evaluator.metrics, number_of_classes(model))
    batch = some_batch(loader, 'val_dataloader', IMAGES)
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            outputs = model(**preprocess(model, batch, 'val_dataloader', training=False), mode='predict')
    finally:
        for module, mode in modes.items():
            module.training = mode
    metrics = copy.deepcopy(evaluator)
    found = {}
    try:
        metrics.process(data_samples=outputs, data_batch=batch)
        known = all(type(metric).__module__.startswith(('mmcrrcd.', 'mmpretrain.')) for metric in metrics.metrics)
        if known:
            found = metrics.evaluate(IMAGES)
    except InputError:
        raise
    except WRONG as error:
        names = ', '.join(type(metric).__name__ for metric in metrics.metrics)
        raise InputError(f'val_evaluator: {names} cannot take what the model gives for val_dataloader: {first_line(error)}'
                         ) from error
    for best in best_metrics(runner) if found else ():
        if best not in found:
            raise InputError(f'save_best={best!r} is no metric of val_evaluator, which gives {", ".join(found)}'
                             + nearest(best, found))


def try_batches(runner) -> None:
    """Both trials. Nothing is changed by them: neither weights, statistics and queues nor generators and samplers.

    Raises:
        InputError: see :func:`try_training` and :func:`try_validation`.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    with generators_kept():
        if isinstance(runner.train_dataloader, DataLoader):
            try_training(runner, model)
        val = runner.val_loop
        if type(val) is ValLoop and isinstance(val.evaluator, Evaluator) and isinstance(val.dataloader, DataLoader):
            try_validation(runner, model)
