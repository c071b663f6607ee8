"""The queue of teacher embeddings that negatives come from."""
import torch
from torch import Tensor, nn

from mmcrrcd.errors import InputError


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

    @torch.no_grad()
    def push(self, embedding: Tensor, key: Tensor) -> None:
        """Add a batch: ``embedding`` (N, width), ``key`` (N,) int64, N at most the size of the queue."""
        place = (self.pushed + torch.arange(len(key), device=key.device)) % len(self.key)
        self.embedding[place] = embedding.to(self.embedding.dtype)
        self.key[place] = key
        self.pushed += len(key)
