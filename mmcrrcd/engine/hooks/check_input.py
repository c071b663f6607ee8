"""What only the whole run can know: do data, batch and model fit each other?"""
import math
from itertools import zip_longest

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmcv.transforms import TestTimeAug
from mmpretrain.datasets.transforms import PackInputs

from mmcrrcd.checkpoint import check_finite, check_weights, fitted, network_in, weights_in
from mmcrrcd.datasets.mended import numbers_twice, parts_of
from mmcrrcd.datasets.replay import ReplayedViews
from mmcrrcd.datasets.transforms import ResolutionPair
from mmcrrcd.engine.trial import try_batches
from mmcrrcd.errors import InputError
from mmcrrcd.models.algorithms import Distiller
from mmcrrcd.models.algorithms.schedule import Schedule, value_at
from mmcrrcd.models.networks import unwrapped
from mmcrrcd.registry import HOOKS


def first_epoch(weight: Schedule, earliest: int) -> float:
    """The first epoch from ``earliest`` on in which ``weight`` is not zero; infinite where there is none."""
    last = math.ceil(weight[-1][0]) if isinstance(weight, (list, tuple)) else 0
    return next((epoch for epoch in range(earliest, max(earliest, last) + 1) if value_at(weight, epoch)), math.inf)


def check_stages(weights: dict[str, Schedule], losses, epochs: float) -> None:
    """Raises InputError where no loss trains the student in any of the ``epochs``."""
    earliest = {name: loss.student_from for name, loss in losses.items()}
    first = {name: first_epoch(weight, earliest.get(name, 0)) for name, weight in weights.items()}
    name = min(first, key=first.get)
    if first[name] == math.inf:
        raise InputError(f'no loss ever trains the student: the weights are zero ({", ".join(weights)})')
    if first[name] >= epochs:
        raise InputError(f'no loss trains the student in {epochs} epochs: the first to do so, {name}, begins in epoch '
                         f'{first[name] + 1}; set train_cfg.max_epochs, or shorten the first stage')


def check_first_stages(weights: dict[str, Schedule], losses) -> None:
    """Raises InputError where a loss has a first stage of its own, which its weight does not take as one."""
    for name, loss in losses.items():
        if end := loss.student_from:
            first, last, then = (value_at(weights[name], epoch) for epoch in (0, end - 1, end))
            if not first or first != last or then == last:
                raise InputError(f'{name} trains parts of its own for {end} epochs, then the student: its weight is constant '
                                 'and not zero till then, and another from then on, as '
                                 f'[(0, 1), ({end}, 1), ({end}, 200)], got {weights[name]!r}')


def check_gaps(model: Distiller, epochs: float) -> None:
    """Raises InputError where no part of the total has a weight in one of the ``epochs``: nothing could be learned then."""
    schedules = [weight for weight in (model.cls_weight, *model.weights.values()) if isinstance(weight, (list, tuple))]
    last = max((math.ceil(weight[-1][0]) for weight in schedules), default=0)            # from then on nothing changes
    for epoch in range(int(min(epochs, last + 1))):
        if not model.trains_in(epoch):
            raise InputError(f'no loss has a weight in epoch {epoch + 1}: the schedules of cls_weight and objective leave '
                             'a gap')


def check_pipeline(dataset, loader: str) -> None:
    """Raises InputError where a pipeline makes ``img_low`` by :class:`ResolutionPair` and does not pack it."""
    for part in parts_of(dataset):
        check_steps(list(getattr(getattr(part, 'pipeline', None), 'transforms', None) or ()), loader)


def check_steps(steps: list, loader: str) -> None:
    """:func:`check_pipeline` of the transforms of one pipeline."""
    for step in steps:
        if isinstance(step, TestTimeAug):                # what comes after it is in each of its ways
            steps = [*steps[:steps.index(step)], *(inner for way in step.subroutines for inner in way.transforms)]
    packers = [step for step in steps if isinstance(step, PackInputs)]
    pairs = [i for i, step in enumerate(steps) if isinstance(step, ResolutionPair)]
    for step in steps[pairs[0] + 1:] if pairs else ():
        if type(step).__module__.startswith(('mmcv.', 'mmpretrain.')) and not isinstance(step, PackInputs):
            raise InputError(f"{loader}: {type(step).__name__} comes after ResolutionPair and would change one of the two "
                             "images alone: put ResolutionPair behind it, or leave it to data_preprocessor.resolution")
    if pairs and packers and 'img_low' not in packers[-1].algorithm_keys:
        raise InputError(f"{loader}: ResolutionPair makes img_low, which PackInputs leaves behind: say "
                         "dict(type='PackInputs', algorithm_keys=('img_low', ))")


def check_num_samples(losses, dataset) -> None:
    """Raises InputError where a loss counts on another number of training images, its ``num_samples``."""
    images = len(getattr(dataset, 'dataset', dataset))   # behind mmengine's wrappers, which show some images several times
    for name, loss in losses.items():
        by_position = loss.num_samples is not None or loss.needs_positions
        if by_position and not isinstance(dataset, ReplayedViews) and numbers_twice(dataset):
            raise InputError(f'{name} knows images by their positions, and each part of a ConcatDataset counts its own from 0: '
                             'put them into one data set, whose ann_file lists the images of all')
        if loss.num_samples not in (None, images):
            raise InputError(f'{name} has num_samples={loss.num_samples}, and there are {images} training images')


def check_replay(model: Distiller, dataset) -> None:
    """Raises InputError where the teacher's answers are not those to what the training data will show."""
    cache, replayed = model.cache, isinstance(dataset, ReplayedViews)
    if cache is None:
        if replayed:
            raise InputError('the training data are ReplayedViews, and the model has no teacher_cache that knows these')
        return
    if cache.num_images != len(dataset):
        raise InputError(f'{cache.folder} holds answers to {cache.num_images} images, and there are {len(dataset)} training '
                         'images')
    wanted = dict(views=cache.views, seed=cache.about['seed'])
    if cache.views != 'all' and not (replayed and wanted == dict(views=dataset.views, seed=dataset.seed)):
        raise InputError(f'{cache.folder} holds answers to views that repeat: wrap train_dataloader.dataset in '
                         f"dict(type='mmcrrcd.ReplayedViews', dataset=..., views={cache.views}, seed={wanted['seed']}), as "
                         'tools/train.py does')


def check_training(model, loader, epochs: float) -> None:
    """Raises InputError where data, batch, or length in epochs (infinite where it is by iterations) do not fit ``model``."""
    classes = (getattr(loader.dataset, 'metainfo', None) or {}).get('classes')
    known = getattr(model.student.head, 'num_classes', None)
    if classes is not None and known is not None and len(classes) != known:
        raise InputError(f'the training data have {len(classes)} classes, the student {known}: set its head.num_classes')
    check_stages({'the classification loss': model.cls_weight, **model.weights}, model.losses, epochs)
    check_first_stages(model.weights, model.losses)
    check_gaps(model, epochs)
    images = getattr(loader.dataset, 'images', None)
    if loader.num_workers and getattr(images, 'is_cuda', False):
        raise InputError(f"images kept on the GPU need num_workers=0, got {loader.num_workers}; or say device='cpu'")
    check_num_samples(model.losses, loader.dataset)
    check_replay(model, loader.dataset)
    for loss in model.losses.values():
        loss.check_batch(loader.batch_size * get_world_size())


def changed_schedules(now: list[dict], then: list[dict]) -> list[str]:
    """In what the states of schedules differ from those of a checkpoint, progress aside."""
    def plain(value):
        return sorted(value) if isinstance(value, dict) else value                     # milestones are a Counter

    progress = {'base_values', 'last_step', 'verbose', '_global_step', '_last_value'}
    return [f'{name} {plain(theirs.get(name))} there, {plain(value)} here'
            for ours, theirs in zip_longest(now, then, fillvalue={})
            for name, value in ours.items() if name not in progress and plain(theirs.get(name)) != plain(value)]


def warn_of_schedules(runner) -> None:
    """Says where all steps of a schedule come after the training's end."""
    loop = runner.train_loop
    for schedule in runner.param_schedulers if isinstance(runner.param_schedulers, list) else ():
        by_epoch = getattr(schedule, 'by_epoch', True)
        end = loop.max_epochs if by_epoch and isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
        milestones = sorted(getattr(schedule, 'milestones', None) or ())
        if milestones and milestones[0] >= end and (by_epoch is isinstance(loop, EpochBasedTrainLoop)):
            runner.logger.warning(f'param_scheduler.milestones={milestones}: none comes before the end of the training, at '
                                  f'{end}, so the learning rate stays what it is')


def student_from(checkpoint: dict, model: Distiller, file: str) -> dict:
    """The state of ``model`` with the student in a checkpoint of any origin, and, of a distiller's, what its losses learned.

    Raises:
        InputError: the weights are another network's, or not finite.
    """
    wanted, state = model.student.state_dict(), model.state_dict()
    student = fitted(network_in(checkpoint, file), wanted)
    try:
        check_weights(student, wanted, file, 'student')
    except InputError as error:
        raise InputError(f"{error}; for its backbone alone say backbone=dict(init_cfg=dict(type='Pretrained', "
                         "checkpoint=..., prefix='backbone')) instead of load_from") from error
    check_finite(student, wanted, file)
    learned = {key: value for key, value in weights_in(checkpoint, file).items() if key in state}      # by the losses, too
    return state | learned | {f'student.{key}': value for key, value in student.items()}


@HOOKS.register_module()
class CheckInputHook(Hook):
    """Compares data, model, schedules and checkpoint before training, and tries a few images.

    The data's classes must be the student's. The losses must be able to hold the batch and the number of images. The weights'
    schedules must fit the loop and its length, and the place of the images the loader's workers. A few images go through data,
    preprocessor, network and evaluator, see :func:`mmcrrcd.engine.trial.try_batches`. To resume from a checkpoint all of it
    must fit, to start from it (``load_from``) the student. Where the learning rate's schedule is another than the checkpoint's,
    whose state mmengine takes, it warns.

    Of a model that is no :class:`Distiller`, such as a plain classifier of mmpretrain, only pipeline, labels and trial.

    It keeps the size of the training's images in the log, hence in checkpoints, where whoever loads the student finds it.

    Raises:
        InputError: they do not fit.
    """

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Refuses weights that do not fit the model."""
        model, file = unwrapped(runner.model), runner._load_from or f'the last one in {runner.work_dir}'
        if not runner._resume:
            if isinstance(model, Distiller):             # else mmengine's own loading
                checkpoint['state_dict'] = student_from(checkpoint, model, file)
            return
        weights = {str(key).removeprefix('module.'): value
                   for key, value in checkpoint.get('state_dict', checkpoint).items()}
        check_weights(weights, model.state_dict(), file, 'training')
        schedules, then = runner.param_schedulers, checkpoint.get('param_schedulers')
        if isinstance(schedules, list) and isinstance(then, list):
            if changed := changed_schedules([schedule.state_dict() for schedule in schedules], then):
                runner.logger.warning('the learning rate goes on by the schedule of the checkpoint, not by that of the config: '
                                      + '; '.join(changed))

    def before_train(self, runner) -> None:
        """Looks at data and model, and tries a few batches."""
        model = unwrapped(runner.model)
        check_pipeline(runner.train_dataloader.dataset, 'train_dataloader')
        if getattr(runner, 'val_loop', None) is not None:
            self.before_val(runner)
        if isinstance(model, Distiller):
            self.check_distiller(runner, model)
        if isinstance(runner, Runner):
            warn_of_schedules(runner)
            try_batches(runner)

    def check_distiller(self, runner, model: Distiller) -> None:
        """Refuses schedules, stages and numbers of samples that do not fit the training."""
        weights = {'the classification loss': model.cls_weight, **model.weights}
        scheduled = [f'the weight of {name} is' for name, weight in weights.items() if isinstance(weight, (list, tuple))]
        scheduled += [f'{name} has' for name, loss in model.losses.items() if loss.student_from]
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if scheduled and not by_epoch:
            raise InputError(f'{scheduled[0]} a schedule over epochs, but training is by iterations')
        check_training(model, runner.train_dataloader, runner.train_loop.max_epochs if by_epoch else math.inf)

    def before_val(self, runner) -> None:
        """Looks at the pipeline of the validation."""
        check_pipeline(runner.val_dataloader.dataset, 'val_dataloader')

    def before_test(self, runner) -> None:
        """Looks at the pipeline of the test."""
        check_pipeline(runner.test_dataloader.dataset, 'test_dataloader')

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Notes the size of the images, for those who ask the student later."""
        if batch_idx == 0 and data_batch is not None:
            size = [int(side) for side in data_batch['inputs'][0].shape[-2:]]
            runner.message_hub.update_info('image_size', size)
