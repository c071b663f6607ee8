"""What a training that goes on has to know of the one before it."""
from numbers import Number
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.runner import EpochBasedTrainLoop
from torch import Tensor

from mmcrrcd.checkpoint import check_finite, read_network
from mmcrrcd.errors import InputError, printable
from mmcrrcd.models.networks import unwrapped
from mmcrrcd.models.teachers.cache import read_manifest
from mmcrrcd.models.teachers.fingerprint import digest_of_weights
from mmcrrcd.registry import HOOKS

COMPARED = ('model', 'data_preprocessor', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'auto_scale_lr', 'custom_hooks',
            'val_dataloader', 'val_evaluator', 'val_cfg', 'randomness')
STORED = ('optim_wrapper.optimizer.', 'randomness.seed')    # their values come with the checkpoint


def plain_settings(value):
    """A config, or a part of one, as plain values: types and functions by their names."""
    if isinstance(value, dict):
        return {str(key): plain_settings(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_settings(each) for each in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Number):
        return value if type(value) in (int, float) else float(value)
    return f'{value.__module__}.{value.__qualname__}' if hasattr(value, '__qualname__') else repr(value)


def flat(settings, name: str = '') -> dict[str, object]:
    """From ``optim_wrapper.optimizer.lr`` to its value, for all values; lists of numbers and texts are values."""
    if isinstance(settings, list) and any(isinstance(each, dict) for each in settings):
        settings = dict(enumerate(settings))
    if not isinstance(settings, dict) or not settings:
        return {name: settings}
    return {key: value for part, each in settings.items()
            for key, value in flat(each, f'{name}.{part}' if name else str(part)).items()}


def changed_settings(now: dict, then: dict) -> list[str]:
    """A line for each setting that is another one in the checkpoint; it says which of both is taken."""
    here, there = ({key: value for part in COMPARED if part in settings for key, value in flat(settings[part], part).items()}
                   for settings in (now, then))

    def said(values: dict, key: str) -> str:
        return repr(values[key]) if key in values else 'not set'

    lines = []
    for key in dict.fromkeys([*here, *there]):
        if said(here, key) != said(there, key):
            stored = key.startswith(STORED) and not key.endswith('.type')
            lines.append(f'{key} is {said(here, key)} here and {said(there, key)} in the checkpoint: '
                         + ("the checkpoint's is taken" if stored else 'that of now is taken'))
    return lines


def check_resumable(checkpoint: dict, has_schedule: bool, file: str) -> None:
    """Raises InputError where a checkpoint lacks what a training needs to go on as if it had never stopped."""
    meta, hub = checkpoint.get('meta'), checkpoint.get('message_hub')
    steps = [meta.get(name) for name in ('epoch', 'iter')] if isinstance(meta, dict) else [None]
    if not all(type(step) is int and step >= 0 for step in steps) or not isinstance(hub, dict):
        raise InputError(f'{file} is not a checkpoint of a training: it does not say how far it came; to start from its '
                         'weights set load_from')
    for key, what in (('optimizer', "the optimizer's state"), ('param_schedulers', "the schedule's state")):
        if key not in checkpoint and (has_schedule or key == 'optimizer'):
            raise InputError(f'{file} cannot be resumed from: it lacks {what}, as the best checkpoints do, which would '
                             'restart; resume from the last checkpoint, or start from its weights with load_from')


def counts(runner) -> list[list[float]]:
    """Best score and tests without a better one, of each hook that stops the training early."""
    return [[float(hook.best_score), hook.wait_count] for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)]


@HOOKS.register_module()
class ResumeHook(Hook):
    """Keeps the settings in the checkpoints, as plain values, and says on resuming which of them are others now. Tests the
    resumed checkpoint first where a test was due. A kill may have come between both. Also keeps what mmengine's
    ``EarlyStoppingHook`` has counted, as it was before that test.

    The Runner of this package has it in any case.

    Raises:
        InputError: the checkpoint is of no training, or without the states of optimizer and schedule; a weight is not finite.
    """

    def __init__(self):
        self.teacher, self.resumed, self.counted = None, False, (None, [])

    def digest(self, runner) -> dict[str, str]:
        """Of the teacher's weights, read once; of its answers where these are read from disk, and it may not be here at all."""
        model = runner.cfg.get('model')
        model = model if isinstance(model, dict) else {}
        if self.teacher is None:
            if cache := model.get('teacher_cache'):
                self.teacher = dict(teacher_cache=read_manifest(Path(cache['folder']))['fingerprint'])
            else:
                path = model.get('teacher_checkpoint')
                self.teacher = dict(teacher=digest_of_weights(read_network(path))[:12]) if path else {}
        return self.teacher

    def before_val_epoch(self, runner) -> None:
        """Looks at what the early stopping hooks had counted: this test comes again on resuming from here."""
        self.counted = runner.iter, counts(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Adds the settings and checksums that a resumed training is compared with."""
        cfg, (tested, before) = runner.cfg, self.counted
        checkpoint['meta']['early_stopping'] = before if tested == runner.iter else counts(runner)
        checkpoint['meta']['settings'] = {key: plain_settings(cfg[key]) for key in COMPARED if key in cfg}
        checkpoint['meta'].update(self.digest(runner))

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Checks the weights; on resuming it says what differs from before."""
        model = unwrapped(runner.model)
        file = printable(runner._load_from or f'the last one in {runner.work_dir}')
        weights, untrained = checkpoint.get('state_dict', checkpoint), model.state_dict()
        weights = {str(key).removeprefix('module.'): value for key, value in weights.items() if isinstance(value, Tensor)}
        check_finite({key: weights[key] for key in untrained if key in weights}, untrained, file)
        if not runner._resume:
            return
        check_resumable(checkpoint, runner.param_schedulers is not None, file)
        self.resumed, meta = True, checkpoint['meta']
        hooks, known = [hook for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)], meta.get('early_stopping')
        if isinstance(known, list) and len(known) == len(hooks) and all(
                isinstance(each, list) and [type(part) for part in each] == [float, int] for each in known):
            for hook, (best, waited) in zip(hooks, known):
                hook.best_score, hook.wait_count = best, waited
        lines = []
        if isinstance(meta.get('settings'), dict):
            now = {key: plain_settings(runner.cfg[key]) for key in COMPARED if key in runner.cfg}
            lines = changed_settings(now, meta['settings'])
        if is_main_process() and meta.keys() & {'teacher', 'teacher_cache'}:
            for key, now in self.digest(runner).items():
                if meta.get(key, now) != now:
                    lines.append(f'the teacher at {runner.cfg.model.teacher_checkpoint} is another one now, with other weights'
                                 if key == 'teacher' else
                                 f"the teacher's answers in {runner.cfg.model.teacher_cache.folder} are others now")
        for line in lines:
            runner.logger.warning(printable(f'resumed with another setting: {line}'))

    def before_train(self, runner) -> None:
        """Tests the resumed checkpoint once more, where a test was due."""
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        done, planned = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
        if not self.resumed or runner.val_loop is None or not done:
            return
        loop._decide_current_val_interval()
        if done >= loop.val_begin and (done % loop.val_interval == 0 or done >= planned):
            runner.logger.info('testing the checkpoint that was resumed from')
            runner.val_loop.run()
