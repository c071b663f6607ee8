"""Training steps as CUDA graphs: one launch for all the kernels of a step, which for small networks take longer to launch
than to run.
"""
import gc
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only

from mmcrrcd.errors import InputError, first_line
from mmcrrcd.models import Distiller
from mmcrrcd.registry import LOOPS
from mmcrrcd.structures import Batch


SHOWN: dict = {}                                         # warnings that Python shows once


def is_wait(warning: str) -> bool:
    """Is this PyTorch's warning of an operation that waits, not that its watch is a prototype?"""
    return 'called a synchronizing CUDA operation' in warning


@contextmanager
def waits() -> Iterator[list[str]]:
    """Collects PyTorch's words on each operation in the block that made the host wait for the GPU."""
    found, before = [], torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for w in caught:
        if is_wait(str(w.message)):
            found.append(f'{w.message} at {w.filename}:{w.lineno}')
        else:
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno, registry=SHOWN)


def numbers_drawn() -> int:
    """How far the GPU's generator has come."""
    return torch.cuda.default_generators[torch.cuda.current_device()].get_offset()


class SteadyBatch:
    """Gives batches of the size of the first one in memory that stays the same, for graphs to read."""

    def __init__(self):
        self.kept, self.form = None, None

    def __call__(self, batch):
        """The kept batch with the values of ``batch``, or ``batch`` itself where the two differ in form.

        Forms differ by sizes, by which tensors are one and the same, by whole numbers, and by anything that is neither.
        """
        leaves, structure = tree_flatten(batch)
        if not all(leaf is None or isinstance(leaf, (int, Tensor)) for leaf in leaves):
            return batch
        tensors = {id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}
        form = structure, [(list(tensors).index(id(leaf)), leaf.shape) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        if self.kept is None:
            copies = {key: tensor.clone() for key, tensor in tensors.items()}
            self.kept, self.form = tree_map_only(Tensor, lambda leaf: copies[id(leaf)], batch), form
            self.tensors = list(copies.values())
            return self.kept
        if form != self.form:
            return batch
        for ours, theirs in zip(self.tensors, tensors.values()):
            ours.copy_(theirs, non_blocking=True)
        return self.kept


class GraphedStep:
    """``step(batch)`` on a stream of its own; of steady batches, from the second on, by a graph captured of it.

    What ``step`` reads from Python, learning rates, weights and stages for instance, is part of the graph: :meth:`restart`
    before such things change. So is its choice of operations. Where the first steps make the host wait for the GPU, no graph
    is captured and steps stay as they are. Steps of different objects run side by side until they are joined. Of those that
    draw random numbers (``draws``) graphs must not, as they share the place from which they read how far the generator has
    come.

    Args:
        step: from a batch to tensors; may change weights and buffers in place.
    """

    TRIALS = 2                                           # what a step has to wait for may be over after its first time

    def __init__(self, step: Callable):
        self.step, self.stream = step, torch.cuda.Stream()
        self.graph, self.outputs, self.draws = None, None, False
        self.restart()

    def restart(self) -> None:
        """The next step is taken without a graph."""
        self.plain, self.ready, self.why_not = 0, False, []

    def launch(self, batch, steady: bool):
        """What ``step(batch)`` returns, to be read after :meth:`join`, and before the next launch.

        Raises:
            InputError: the step cannot be captured.
        """
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            if not steady:
                return self.step(batch)
            if not self.plain or self.why_not:
                return self.take(batch)
            if not self.ready:
                self.capture(batch)
            self.graph.replay()
            return self.outputs

    def take(self, batch):
        """A step kernel by kernel, one of the first of an epoch, which is watched for what a graph could not repeat."""
        self.plain += 1
        if self.plain > self.TRIALS:
            return self.step(batch)
        before = numbers_drawn()
        with waits() as found:
            outputs = self.step(batch)
        self.why_not, self.draws = found, self.draws or numbers_drawn() != before
        return outputs

    def capture(self, batch) -> None:
        """Captures the step with this batch as a graph. Raises InputError where that is impossible."""
        # A graph before this one is kept till then, and with it the memory that both have in turn. No garbage is collected
        # meanwhile: a graph of another training among it would end the capture.
        before, graph, collects = self.graph, torch.cuda.CUDAGraph(), gc.isenabled()
        if before is None:
            torch.cuda.empty_cache()
        gc.disable()
        try:
            graph.capture_begin(pool=before and before.pool(), capture_error_mode='thread_local')
            try:
                self.outputs = self.step(batch)
            finally:
                graph.capture_end()
        except RuntimeError as error:
            reason = first_line(error.__context__ or error)
            raise InputError(f'a step cannot be captured as a CUDA graph: {reason}') from error
        finally:
            if collects:
                gc.enable()
        self.graph, self.ready = graph, True

    def join(self) -> None:
        """Whatever the current stream does next comes after the step."""
        torch.cuda.current_stream().wait_stream(self.stream)


@LOOPS.register_module()
class GraphedTrainLoop(EpochBasedTrainLoop):
    """mmengine's loop by epochs, whose steps on a GPU are :class:`GraphedStep`; on a CPU it is mmengine's.

    ``tools/train.py --cuda-graphs``, or ``train_cfg = dict(type=GraphedTrainLoop, max_epochs=240)``. Data and preprocessing
    stay outside, and hooks run between the steps as ever. The graph is captured anew in each epoch, so learning rates,
    weights and stages may change from one to the next. A loss that counts its calls in Python, or decides by them, needs
    mmengine's loop. What it does in the second step of an epoch is done in all that follow.

    Raises:
        InputError: on a GPU, where several processes train, the model is none of this package's, or a step cannot be captured.
            Also where something changes within an epoch: a schedule by iterations, accumulated gradients, or an Adam without
            ``capturable=True``.
    """

    def run(self):
        """Trains, after a check that this training can be captured."""
        self.step = None
        if torch.cuda.is_available():
            self.check()
            self.steady, self.step = SteadyBatch(), GraphedStep(self.learn)
        return super().run()

    def check(self) -> None:
        """Raises InputError where something changes within an epoch."""
        runner = self.runner
        schedules = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
        for refused, what in ((is_model_wrapper(runner.model), 'several processes'),
                              (not isinstance(runner.model, Distiller), f'a {type(runner.model).__name__}'),
                              (runner.optim_wrapper._accumulative_counts > 1, 'accumulated gradients'),
                              (any(group.get('capturable') is False for group in runner.optim_wrapper.param_groups),
                               'an optimizer that counts its steps (say capturable=True in its config)'),
                              (any(not schedule.by_epoch for schedule in schedules), 'schedules by iterations')):
            if refused:
                raise InputError(f'GraphedTrainLoop (--cuda-graphs) is not for {what}: leave it out')

    def run_epoch(self) -> None:
        """An epoch, which begins without a graph."""
        if self.step:
            self.step.restart()
        super().run_epoch()

    def run_iter(self, idx: int, data_batch: dict) -> None:
        """A step and its hooks."""
        if not self.step:
            return super().run_iter(idx, data_batch)
        self.runner.call_hook('before_train_iter', batch_idx=idx, data_batch=data_batch)
        batch = self.runner.model.data_preprocessor(data_batch, training=True)
        batch = self.steady(batch | dict(data_samples=Batch.of(batch['data_samples'])))
        names, values = self.step.launch(batch, batch is self.steady.kept)
        self.step.join()
        if self.step.plain == self.step.TRIALS and self.step.why_not:
            print_log(f'steps are not captured in this epoch: {self.step.why_not[0]}', 'current', logging.WARNING)
        outputs = dict(zip(names, values.clone().unbind()))
        self.runner.call_hook('after_train_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def learn(self, batch: dict) -> tuple[list[str], Tensor]:
        """A step with a batch that the preprocessor has been through: names and values of what the log shows."""
        model, wrapper = self.runner.model, self.runner.optim_wrapper
        with wrapper.optim_context(model):
            losses = model(**batch, mode='loss')
        loss, shown = model.parse_losses(losses)
        wrapper.update_params(loss)
        return list(shown), torch.stack([value.detach().float() for value in shown.values()])
