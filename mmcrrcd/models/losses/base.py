"""The contract of a loss: all that a method may declare, and when it is asked."""
from torch import Tensor, nn

from mmcrrcd.errors import InputError
from mmcrrcd.structures import Batch, NetworkOutput


class DistillLoss(nn.Module):
    """Base of every loss in the ``objective`` of a :class:`Distiller`. A subclass writes ``forward``; the rest has defaults.

    Before training the distiller calls :meth:`build` once with the networks' outputs for a trial batch. It
    calls :meth:`check_batch` with the size of a batch of all processes, and ``forward`` in each step after :meth:`set_epoch`.
    Parameters made in ``__init__`` or :meth:`build` are trained with the student; buffers are saved with it.

    Example:
        >>> from torch.nn import functional as F
        >>> class MyLoss(DistillLoss):                   # in a file of your own: @LOSSES.register_module() above it
        ...     def build(self, student, teacher):
        ...         self.map = nn.Linear(student.embedding.shape[1], teacher.embedding.shape[1])
        ...
        ...     def forward(self, student, teacher, batch):
        ...         return 1 - F.cosine_similarity(self.map(student.embedding), teacher.embedding).mean()
    """

    needs: frozenset[str] = frozenset({'embedding'})
    """What it reads of the teacher's output, among 'logits', 'embedding', 'feature_maps', 'pre_activations'. A teacher that
    lacks one is refused. 'pre_activations' are computed only where a loss needs them, of either network."""

    student_needs: frozenset[str] = frozenset()
    """The same of the student's output, such as 'pre_activations'. Logits and embedding are always there."""

    needs_labels: bool = False
    """Does it read ``batch.labels``? Refused where images are mixed, as by Mixup, or have no labels."""

    without_labels: str = ''
    """The setting by which it needs no labels, where it has one: the line that refuses it says so."""

    needs_positions: bool = False
    """Does it read ``batch.index``? Refused where parts of the training data count their images from 0 each."""

    needs_teacher: bool = True
    """False where it may run without a teacher, whose output is None then."""

    student_from: int = 0
    """The first epoch, from 0, in which it trains the student, for a loss with a stage of its own before that."""

    staged: bool = False
    """True where some of its parameters get no gradient in some epochs, which DDP has to know. Of the class, not the object."""

    smallest_batch: int = 1
    """A smaller batch, of all processes together, is refused."""

    num_samples: int | None = None
    """The number of training images that it counts on; another is refused. None where it does not matter."""

    def __init__(self):
        super().__init__()
        self.log_vars: dict[str, Tensor] = {}
        """Scalars for the log, set in ``forward``. 'score' of a loss called rcd is shown as ``rcd_score``. They are never
        summed into the total, so no key contains 'loss'."""

    def build(self, student: NetworkOutput, teacher: NetworkOutput | None) -> None:
        """Makes what depends on the widths of the networks. Raises InputError where they do not suit it."""

    def set_epoch(self, epoch: int) -> None:
        """Hears which epoch it is, from 0, before each ``forward``."""

    def check_batch(self, size: int) -> None:
        """Raises InputError where a batch of ``size`` samples, of all processes together, does not fit."""
        if size < self.smallest_batch:
            raise InputError(f'{type(self).__name__} needs a batch of at least {self.smallest_batch} images, got {size}')

    def compile(self, *args, **kwargs) -> None:
        """Compiles it, as ``nn.Module.compile`` does; left as it is where it keeps buffers from batch to batch."""
        if not list(self.buffers()):
            super().compile(*args, **kwargs)

    def forward(self, student: NetworkOutput, teacher: NetworkOutput | None, batch: Batch) -> Tensor:
        """The loss of one batch, a scalar, averaged over its samples; embedding and logits come in float32."""
        raise NotImplementedError


class MapLoss(DistillLoss):
    """Base of losses that bring the student's embedding to the teacher's width by a linear ``map``, which is learned."""

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Makes the linear layer."""
        self.map = nn.Linear(student.embedding.shape[1], teacher.embedding.shape[1])
