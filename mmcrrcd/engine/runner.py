"""mmengine's Runner, with the one way by which checkpoints enter this package."""
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from math import isfinite
from pathlib import Path

import mmengine.runner
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_state_dict
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from mmcrrcd.checkpoint import check_finite, find_checkpoint, fitted, read_checkpoint, weights_in
from mmcrrcd.datasets.mended import name_images
from mmcrrcd.errors import WRONG, InputError, explained, nearest, printable
from mmcrrcd.files import clear_dead, write_whole
from mmcrrcd.registry import HOOKS

from .hooks.atomic_checkpoint import AtomicCheckpointHook
from .hooks.resume import ResumeHook
from .settings import MODULES, WAIT


def fill(init: PretrainedInit, module: nn.Module) -> None:
    """mmengine's ``Pretrained``, for checkpoints of any origin. The log names the weights of the part that are not in it.

    Raises:
        InputError: none of its weights is of this part, one is not finite, or it is no checkpoint.
    """
    prefix = f'{init.prefix.rstrip(".")}.' if init.prefix else ''
    weights, wanted = weights_in(read_checkpoint(init.checkpoint), init.checkpoint), module.state_dict()
    part = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    part = part if prefix else fitted(part, wanted)
    fit = {key: part[key] for key in wanted if key in part and part[key].shape == wanted[key].shape
           and wanted[key].is_floating_point() <= part[key].is_floating_point()}
    if not any(value.is_floating_point() for value in fit.values()):
        raise InputError(f'{init.checkpoint} has no weights {prefix}* of a {type(module).__name__}, such as '
                         f'{prefix}{next(iter(wanted), "")}: it has {printable(", ".join(list(weights)[:3]))} ...')
    check_finite(fit, wanted, init.checkpoint)
    print_log(f'load {prefix or "a model"} from: {init.checkpoint}', 'current')
    load_state_dict(module, part, strict=False, logger='current')
    if hasattr(module, '_params_init_info'):
        update_init_info(module, init_info=init._get_init_info())


@contextmanager
def safe_loading() -> Iterator[None]:
    """In the block, mmengine's loader reads through :func:`read_checkpoint`: local files, no code.

    So do ``Runner.load_checkpoint``, ``Runner.resume``, and, by :func:`fill`, ``init_cfg=dict(type='Pretrained')`` of any part
    of a model.
    """
    before, call = CheckpointLoader.__dict__['load_checkpoint'], PretrainedInit.__call__

    def load(cls, filename, map_location=None, logger='current') -> dict:
        return read_checkpoint(filename, map_location if isinstance(map_location, str) else 'cpu')

    CheckpointLoader.load_checkpoint, PretrainedInit.__call__ = classmethod(load), fill
    try:
        yield
    finally:
        CheckpointLoader.load_checkpoint, PretrainedInit.__call__ = before, call


LIKE_WEIGHTS = {'momentum_buffer', 'exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'square_avg', 'grad_avg', 'acc_delta', 'sum'}


def check_optimizer(optimizer: Optimizer, file: str) -> None:
    """Raises InputError where what an optimizer has of a checkpoint does not fit its weights: the first step would tell."""
    for group in optimizer.param_groups:
        for name, usual in optimizer.defaults.items():
            value = group.get(name)
            number = isinstance(value, (bool, int, float, Tensor)) and isfinite(value)
            if isinstance(usual, (bool, int, float)) and not number:
                raise InputError(f"{file} cannot be resumed from: the optimizer's {name} is {printable(value)[:60]}")
    for weight, state in optimizer.state.items():
        if not isinstance(state, dict):
            raise InputError(f"{file} cannot be resumed from: the optimizer's state of a weight is a {type(state).__name__}")
        for name, value in state.items():
            fits = not isinstance(value, (str, list, dict)) and (not isinstance(value, Tensor) or value.isfinite().all())
            if name in LIKE_WEIGHTS and value is not None:
                fits = fits and isinstance(value, Tensor) and value.shape == weight.shape and not value.is_complex()
            if not fits:
                raise InputError(f"{file} cannot be resumed from: the optimizer's {name} does not fit a weight "
                                 f'{tuple(weight.shape)}, or is not finite')


class FormattedOnce(Config):
    """A config that stays as it is. mmengine formats its text for each checkpoint, which takes longer than to write one."""

    @cached_property
    def pretty_text(self) -> str:
        """The config as text, formatted once."""
        return super().pretty_text


class Runner(mmengine.runner.Runner):
    """mmengine's Runner, that a file from elsewhere cannot make run code, and that loses nothing.

    - Every checkpoint, that of ``resume``, ``load_from`` and ``Pretrained``, is read by :func:`read_checkpoint`.
    - ``resume`` goes on from the newest whole checkpoint, see :func:`find_checkpoint`; :class:`ResumeHook` says what differs.
    - mmengine's ``CheckpointHook`` is built as :class:`AtomicCheckpointHook`.
    - Loaders wait :data:`WAIT` seconds for a worker where they do not say ``timeout``, and name an image that cannot be read.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        object.__setattr__(self.cfg, '__class__', FormattedOnce)         # mmengine's own would make it a setting
        self.register_hook(ResumeHook(), 'LOWEST')

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        """mmengine's, with atomic checkpoints."""
        hooks = dict(hooks or {})
        checkpoint = hooks.get('checkpoint', dict(type='CheckpointHook'))
        if isinstance(checkpoint, dict) and not checkpoint.keys() & {'backend_args', 'file_client_args'}:
            kind = checkpoint['type']
            if (HOOKS.get(kind) if isinstance(kind, str) else kind) is CheckpointHook:
                hooks['checkpoint'] = dict(checkpoint, type=AtomicCheckpointHook)
        super().register_default_hooks(hooks)

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, *args, **kwargs) -> DataLoader:
        """mmengine's, see the class."""
        if isinstance(dataloader, dict) and dataloader.get('num_workers'):
            dataloader = {'timeout': WAIT, **dataloader}
        loader = mmengine.runner.Runner.build_dataloader(dataloader, *args, **kwargs)
        if hasattr(loader, 'dataset'):
            name_images(loader.dataset)
        return loader

    def build_optim_wrapper(self, optim_wrapper: OptimWrapper | dict) -> OptimWrapper | OptimWrapperDict:
        """mmengine's. Raises InputError where ``custom_keys`` name no weight of the model."""
        built = super().build_optim_wrapper(optim_wrapper)
        default = isinstance(optim_wrapper, dict) and 'constructor' not in optim_wrapper
        settings = (optim_wrapper.get('paramwise_cfg') if default else None) or {}
        weights = [name for name, _ in self.model.named_parameters()]
        for key in settings.get('custom_keys') or ():
            if not any(str(key) in name for name in weights):
                raise InputError(f'optim_wrapper.paramwise_cfg.custom_keys: {key!r} is in the name of no weight, such as '
                                 f'{weights[0]}')
        return built

    def dump_config(self) -> None:
        """mmengine's, but whole or not at all, and over a link rather than through it."""
        name = Path(self.cfg.filename).name if self.cfg.filename is not None else f'{self.timestamp}.py'
        if is_main_process():
            clear_dead(self.work_dir, '*.py')
            write_whole(Path(self.work_dir, name), self.cfg.pretty_text)

    def _init_model_weights(self) -> None:
        known = {name.removeprefix('module.') for name, _ in self.model.named_modules()}
        for key in sorted(MODULES):
            names = self.cfg.get(key) or ()
            for name in [names] if isinstance(names, str) else names:
                if name not in known:
                    raise InputError(f'{key}: the model has no module {name!r}{nearest(name, known)}')
        with safe_loading():
            super()._init_model_weights()

    def load_checkpoint(self, filename: str, *args, **kwargs) -> dict:
        """mmengine's, of a local file, loaded so that it cannot run code. Raises InputError where it is none."""
        with safe_loading():
            return super().load_checkpoint(filename, *args, **kwargs)

    def resume(self, filename: str, *args, **kwargs) -> None:
        """mmengine's. Raises InputError where the file is no checkpoint that this training can go on from; one line."""
        with explained(f'{printable(filename)} cannot be resumed from', WRONG):          # a crafted file
            super().resume(filename, *args, **kwargs)
            for optimizer in (wrapper.optimizer for wrapper in self._optimizers()):
                check_optimizer(optimizer, printable(filename))

    def _optimizers(self) -> list:
        """The optimizer wrappers, of which most trainings have one."""
        wrapper = self.optim_wrapper
        return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]

    def load_or_resume(self) -> None:
        """mmengine's, but the last checkpoint in the work directory is found as :func:`find_checkpoint` says."""
        if self._has_loaded or not self._resume or self._load_from is not None:
            return super().load_or_resume()
        try:
            found = find_checkpoint(self.work_dir)
        except FileNotFoundError:
            self.logger.warning(f'there is no checkpoint in {printable(self.work_dir)}: the training starts anew')
            return None
        self.logger.info(f'going on from {printable(found)}')
        self.resume(str(found))
        self._has_loaded = True
        pointer = Path(self.work_dir, 'last_checkpoint')
        if is_main_process() and not (pointer.is_file() and pointer.read_text(errors='replace') == str(found)):
            write_whole(pointer, str(found))             # a kill came before it was written, or the folder was renamed
