"""Where negatives come from: a queue of the teacher's last embeddings, or a bank with a place for each training image."""
import torch
from mmengine import dist
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.structures import Batch


class EmbeddingQueue(nn.Module):
    """The last ``size`` embeddings with a key each (a class label, or an index in the data set), first in, first out.

    All of it is in ``state_dict()``. Nothing here waits for the device.
    """

    def __init__(self, size: int, width: int):
        super().__init__()
        self.register_buffer('embedding', torch.zeros(size, width))
        self.register_buffer('key', torch.full((size,), -1, dtype=torch.long))
        self.register_buffer('pushed', torch.zeros((), dtype=torch.long))        # how many, ever

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        saved = state_dict.get(prefix + 'embedding')
        if saved is not None and saved.shape != self.embedding.shape:
            raise InputError(f"the checkpoint's queue is {tuple(saved.shape)}, num_negatives and the teacher make it "
                             f'{tuple(self.embedding.shape)}: resume with the settings it was trained with')
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def full(self) -> Tensor:
        """Scalar bool: has every place been filled?"""
        return self.pushed >= len(self.key)

    @property
    def filled(self) -> Tensor:
        """(size,) bool: which places hold an embedding, whatever its key is?"""
        return torch.arange(len(self.key), device=self.key.device) < self.pushed

    @torch.no_grad()
    def push(self, embedding: Tensor, key: Tensor) -> None:
        """Add a batch of N at most the size of the queue: ``embedding`` (N, width) and N keys, int64."""
        place = (self.pushed + torch.arange(len(key), device=key.device)) % len(self.key)
        self.embedding[place] = embedding.to(self.embedding.dtype)
        self.key[place] = key
        self.pushed += len(key)


class MemoryBank(nn.Module):
    """One unit vector of the student and one of the teacher for each training image, and its label once it has been seen.

    All of it is in ``state_dict()`` and the same in every process. Nothing here waits for the device.

    Args:
        num_samples: N, the number of training images; ``batch.index`` is below it.
        width: length of the vectors.
        momentum: the share of the old vector that an update keeps.
    """

    def __init__(self, num_samples: int, width: int, momentum: float = 0.5):
        super().__init__()
        if num_samples < 2 or not 0 <= momentum < 1:
            raise InputError(f'num_samples is at least 2 and momentum in [0, 1), got {num_samples} and {momentum}')
        self.momentum = momentum
        # A generator of its own: processes with different seeds start from the same bank.
        generator = torch.Generator().manual_seed(0)
        for name in ('student', 'teacher'):
            self.register_buffer(name, F.normalize(torch.rand(num_samples, width, generator=generator) - 0.5))
        self.register_buffer('label', torch.full((num_samples,), -1, dtype=torch.long))         # -1: not seen yet

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        saved = state_dict.get(prefix + 'student')
        if saved is not None and saved.shape != self.student.shape:
            raise InputError(f"the checkpoint's memory bank is {tuple(saved.shape)}, num_samples and dim make it "
                             f'{tuple(self.student.shape)}: resume with the settings it was trained with')
        super()._load_from_state_dict(state_dict, prefix, *args)

    def check(self, index: Tensor | None) -> None:
        """Raises InputError where the data do not tell positions, or tell some beyond the bank.

        On a GPU the second check runs there, and the failure is a CUDA error with this message.
        """
        if index is None:
            raise InputError("a memory bank needs the images' positions: sample_idx in the pipeline's meta_keys")
        inside = ((index >= 0) & (index < len(self.label))).all()
        message = f'num_samples={len(self.label)}, but batch.index goes beyond: set it to the number of training images'
        if index.is_cuda:
            torch._assert_async(inside, message)
        elif not inside:
            raise InputError(message)

    @torch.no_grad()
    def draw(self, batch: Batch, number: int) -> Tensor:
        """Rows of the bank for each sample, (b, 1 + number): its own, then ``number`` negatives.

        Labels are learned as batches pass. A negative is drawn uniformly, and independently of the others, from all rows
        whose label is not the sample's. Rows that no batch has shown yet are among them. So there are exactly ``number``,
        with none masked or drawn again, and after the first epoch none is of the sample's class. Rows are put in the order
        of their labels for it. So a class is one stretch to step over, and no table of negatives is kept.
        """
        self.check(batch.index)
        self.label[torch.cat(dist.all_gather(batch.index))] = torch.cat(dist.all_gather(batch.labels))
        labels, order = self.label.sort()
        start = torch.searchsorted(labels, batch.labels)[:, None]
        own = torch.searchsorted(labels, batch.labels, right=True)[:, None] - start
        place = torch.randint(2**62, (len(own), number), device=own.device) % (len(labels) - own)
        place += own * (place >= start)
        return torch.cat([batch.index[:, None], order[place]], dim=1)

    @torch.no_grad()
    def update(self, index: Tensor, student: Tensor, teacher: Tensor) -> None:
        """M <- l2(momentum M + (1 - momentum) new) at ``index`` (b,), with the unit vectors (b, width) of all processes."""
        index, student, teacher = (torch.cat(dist.all_gather(x)) for x in (index, student.detach(), teacher.detach()))
        # Samplers pad with repeated images. The last one counts, so that the order of the writes does not matter.
        last = torch.where(index[:, None] == index, torch.arange(len(index), device=index.device), -1).amax(1)
        for bank, new in ((self.student, student), (self.teacher, teacher)):
            bank[index] = F.normalize(self.momentum * bank[index] + (1 - self.momentum) * new[last])
