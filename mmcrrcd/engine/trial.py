"""A trial before training: a few images of the training and of the validation go the way that all others will."""
import copy
import logging
import traceback
from contextlib import nullcontext

import cv2
import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, ValLoop
from mmpretrain.evaluation import MultiLabelMetric
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data._utils.fetch import _MapDatasetFetcher

from mmcrrcd.datasets.transforms.resolution_pair import sides
from mmcrrcd.errors import WRONG, InputError, explained, is_number, nearest, with_kind
from mmcrrcd.evaluation.accuracy import BatchAccuracy
from mmcrrcd.generators import generators_kept
from mmcrrcd.models.algorithms import Distiller
from mmcrrcd.models.networks import unwrapped
from mmcrrcd.structures import Pair

from .classes import check_classes, check_labels, classes_of, number_of_classes, place_of, warn_of_absent_classes

IMAGES = 16
OUR_CODE = {'mmcrrcd', 'mmengine', 'mmpretrain', 'mmcv', 'torch', 'torchvision', 'numpy', 'contextlib', 'copy'}


def some_batch(loader: DataLoader, name: str, images: int):
    """A batch of images from all over the data, as the loader would make it, but in this process.

    Raises:
        InputError: there are none, or data and ``collate_fn`` do not fit each other.
    """
    dataset = loader.dataset
    if not len(dataset):
        raise InputError(f'{name} has no images: its {type(dataset).__name__} is empty')
    places = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(int).tolist()
    try:
        return _MapDatasetFetcher(dataset, True, loader.collate_fn, False).fetch(places)
    except InputError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, RuntimeError, ValueError, cv2.error) as error:
        if any('failed to load' in str(each) for each in error.args):
            raise
        how = getattr(loader.collate_fn, 'func', loader.collate_fn)
        raise InputError(f'{name}: the collate_fn {getattr(how, "__name__", how)} makes no batch of samples of a '
                         f'{type(dataset).__name__}: {with_kind(error)}') from error


def preprocess(model: nn.Module, batch, name: str, training: bool) -> dict:
    """``batch`` as the network sees it. Raises InputError where the preprocessor does not fit the data."""
    preprocessor = f'{name}: the data_preprocessor {type(model.data_preprocessor).__name__}'
    with explained(f'{preprocessor} cannot take a batch of this data set, pipeline and collate_fn', WRONG):
        data = model.data_preprocessor(batch, training)
        if isinstance(model, Distiller) and (more := data.keys() - {'inputs', 'data_samples'}):
            raise InputError(f'{preprocessor} hands on {min(more)}, and a Distiller takes inputs and data_samples: say '
                             "dict(type='mmcrrcd.PairPreprocessor', ...)")
        return data


def size_of(batch) -> tuple[int, int]:
    """Height and width of the first image; (0, 0) where there is none."""
    images = batch['inputs'] if isinstance(batch, dict) else []
    return tuple(images[0].shape[-2:]) if len(images) else (0, 0)


def check_sizes(model: Distiller, batch) -> None:
    """Raises InputError where the student's resolution, or the teacher's size, does not fit the training's images."""
    preprocessor = model.data_preprocessor
    height, width = size_of(batch)
    for name in ('resolution', 'train_resolutions'):
        given = getattr(preprocessor, name, None)
        for each in ([given] if name == 'resolution' else given) or []:
            if each is not None and height and (sides(each)[0] > height or sides(each)[1] > width):
                raise InputError(f'data_preprocessor.{name}: {each} is more than the {height} x {width} pixels of the '
                                 'training images')
    if model.has_teacher and height and (height, width) != sides(model.input_size):
        raise InputError(f'model.input_size is {model.input_size}, and the training images have {height} x {width} pixels: say '
                         f'input_size={height if height == width else (height, width)}')


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


def copy_for_trial(model: nn.Module) -> nn.Module | None:
    """A copy of what learns or remembers; the frozen teacher and the preprocessor, with the cached answers, are shared.

    None where a part cannot be copied.
    """
    shared = [getattr(model, 'data_preprocessor', None), model.__dict__.get('teacher')]
    try:
        return copy.deepcopy(model, {id(part): part for part in shared if part is not None})
    except (InputError, RuntimeError, TypeError) as error:               # a session, a generator, a tensor with a history
        print_log(f'the losses are not tried before training, as the model cannot be copied: {with_kind(error)}', 'current')
        return None


def is_of_libraries(error: BaseException) -> bool:
    """Was the error raised without code of others than this package and the libraries below it?"""
    names = [str(frame.f_globals.get('__name__', '')) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return all(name.split('.')[0] in OUR_CODE for name in names)


def stages_of_training(runner, model: nn.Module) -> list[int]:
    """Epochs with losses of their own: the one that comes, and where weights have schedules also the last."""
    if not isinstance(model, Distiller) or not isinstance(runner.train_loop, EpochBasedTrainLoop):
        return [runner.epoch]
    scheduled = any(isinstance(weight, (list, tuple)) for weight in (model.cls_weight, *model.weights.values()))
    return [*dict.fromkeys([runner.epoch, runner.max_epochs - 1] if scheduled else [runner.epoch])]


def try_losses(runner, model: nn.Module, batch) -> None:
    """A batch forward through the losses and back, by a copy of the model. So weights, batch norm statistics, queues and banks
    stay. Raises InputError where they cannot take it; an error in code of others keeps its traceback.

    Args:
        batch: as the network sees it.
    """
    trial, wrapper = copy_for_trial(model), runner.optim_wrapper
    if trial is None:
        return
    trial.train()
    info = runner.message_hub.runtime_info
    epoch = info.get('epoch')
    try:
        for each in stages_of_training(runner, model):
            runner.message_hub.update_info('epoch', each)
            with wrapper.optim_context(trial) if isinstance(wrapper, OptimWrapper) else nullcontext():
                losses = trial(**batch, mode='loss')
            total, _ = trial.parse_losses(losses)
            if total.requires_grad:
                total.backward()
    except (InputError, torch.OutOfMemoryError):
        raise
    except WRONG as error:
        if not is_of_libraries(error):
            raise
        raise InputError(f'the losses cannot take a batch of train_dataloader: {with_kind(error)}') from error
    finally:
        if epoch is None:
            info.pop('epoch', None)
        else:
            runner.message_hub.update_info('epoch', epoch)


def size_of_trial(loader: DataLoader, model: nn.Module) -> int:
    """A few images, or a whole batch where a loss needs as many."""
    whole = loader.batch_size or IMAGES
    try:
        for loss in model.losses.values() if isinstance(model, Distiller) else ():
            loss.check_batch(min(whole, IMAGES) * get_world_size())
    except InputError:
        return whole
    return min(whole, IMAGES)


def try_training(runner, model: nn.Module) -> tuple[int, int]:
    """A few images through data set, ``collate_fn``, preprocessor, networks and losses, and the sizes of all batches. Raises
    InputError where they do not fit. Returns height and width of an image.
    """
    loader = runner.train_dataloader
    images_left(runner)
    check_labels(model, loader.dataset, 'train_dataloader')
    batch = some_batch(loader, 'train_dataloader', size_of_trial(loader, model))
    if isinstance(model, Distiller):
        check_sizes(model, batch)
    data = preprocess(model, batch, 'train_dataloader', training=True)
    if isinstance(model, Distiller):
        check_last_batch(runner, model, data)
    try_losses(runner, model, data)
    return size_of(batch)


def best_metrics(runner) -> list[str]:
    """The metrics that decide which checkpoints are the best, where the config names them."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            best = hook.save_best or []
            return [each for each in ([best] if isinstance(best, str) else best) if each != 'auto']
    return []


def check_topk(metrics, classes: int | None, name: str) -> None:
    """Raises InputError where a metric asks for more classes than there are."""
    for metric in metrics:
        if not hasattr(metric, 'topk') or isinstance(metric, MultiLabelMetric) and metric.topk is None:
            continue
        topk = metric.topk if isinstance(metric.topk, (list, tuple)) else [metric.topk]
        if not topk or not all(is_number(each, whole=True) and each > 0 for each in topk):
            raise InputError(f'{name}: topk are whole numbers from 1 on, got {metric.topk!r}')
        most = max(topk)
        if classes is not None and most > classes:
            raise InputError(f'{name}: topk={most}, and the network has {classes} classes')


def check_evaluator(metrics, outputs, name: str) -> None:
    """Raises InputError where a metric is for the other pipeline.

    Args:
        outputs: what the model gives for a batch, a dict with tensors of the in-memory pipeline, or one object an image.
    """
    in_memory = bool(outputs) and isinstance(outputs[0], dict)
    for metric in metrics:
        kind, module = type(metric).__name__, type(metric).__module__
        if in_memory and module.startswith('mmpretrain.'):
            raise InputError(f'{name}: {kind} is for samples of a pipeline of mmpretrain, and these data are in memory: take '
                             "dict(type='mmcrrcd.BatchAccuracy', topk=(1, )), or wrap the data in mmcrrcd.PipelineArrays")
        if not in_memory and isinstance(metric, BatchAccuracy):
            raise InputError(f'{name}: {kind} is for data in memory, and these come through a pipeline of mmpretrain: take '
                             "dict(type='Accuracy', topk=(1, ))")


def try_evaluator(model: nn.Module, loader: DataLoader, evaluator: Evaluator, name: str) -> tuple[Evaluator, object]:
    """One batch through the network into a copy of the evaluator, which is returned with the batch.

    Args:
        name: 'val' or 'test'.

    Raises:
        InputError: they do not fit.
    """
    batch = some_batch(loader, f'{name}_dataloader', IMAGES)
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            outputs = model(**preprocess(model, batch, f'{name}_dataloader', training=False), mode='predict')
    finally:
        for module, mode in modes.items():
            module.training = mode
    check_evaluator(evaluator.metrics, outputs, f'{name}_evaluator')
    check_topk(evaluator.metrics, number_of_classes(model), f'{name}_evaluator')
    metrics = copy.deepcopy(evaluator)
    names = ', '.join(type(metric).__name__ for metric in metrics.metrics)
    with explained(f'{name}_evaluator: {names} cannot take what the model gives for {name}_dataloader', WRONG):
        metrics.process(data_samples=outputs, data_batch=batch)
    return metrics, batch


def try_validation(runner, model: nn.Module, trained_on: tuple[int, int]) -> None:
    """One batch through the network and the evaluator. Raises InputError where they do not fit, and where ``save_best`` is
    none of the metrics. Metrics of your own, which may need all images, are only given the batch. Says it where images have
    another size than those that were ``trained_on``.
    """
    loader, evaluator, trained = runner.val_dataloader, runner.val_loop.evaluator, runner.train_dataloader.dataset
    check_labels(model, loader.dataset, 'val_dataloader')
    check_classes(classes_of(trained), classes_of(loader.dataset), 'val_dataloader', place_of(loader.dataset))
    warn_of_absent_classes(trained, loader.dataset, 'val_dataloader')
    metrics, batch = try_evaluator(model, loader, evaluator, 'val')
    if (0, 0) not in (trained_on, size_of(batch)) and size_of(batch) != trained_on:
        print_log('the images of val_dataloader have {}×{} px and those of the training {}×{}: is that meant?'.format(
            *size_of(batch), *trained_on), 'current', logging.WARNING)
    found = {}
    if all(type(metric).__module__.startswith(('mmcrrcd.', 'mmpretrain.')) for metric in metrics.metrics):
        names = ', '.join(type(metric).__name__ for metric in metrics.metrics)
        with explained(f'val_evaluator: {names} cannot take what the model gives for val_dataloader', WRONG):
            found = metrics.evaluate(IMAGES)
    for best in best_metrics(runner) if found else ():
        if best not in found:
            raise InputError(f'save_best={best!r} is no metric of val_evaluator, which gives {", ".join(found)}'
                             + nearest(best, found))


def try_batches(runner) -> None:
    """Both trials. Nothing is changed by them: neither weights, statistics and queues nor generators and samplers.

    Raises:
        InputError: see :func:`try_training` and :func:`try_validation`.
    """
    model, size = unwrapped(runner.model), (0, 0)
    with generators_kept():
        if isinstance(runner.train_dataloader, DataLoader):
            size = try_training(runner, model)
        val = runner.val_loop
        if type(val) is ValLoop and isinstance(val.evaluator, Evaluator) and isinstance(val.dataloader, DataLoader):
            try_validation(runner, model, size)
