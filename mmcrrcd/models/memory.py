"""The queue of teacher embeddings that negatives come from."""
import torch
from torch import Tensor, nn


class EmbeddingQueue(nn.Module):
    """The last ``size`` embeddings with a key each (a class label, or an index in the data set), first in, first out.

    All of it is in ``state_dict()``. Nothing here waits for the device.
    """

    def __init__(self, size: int, width: int):
        super().__init__()
        self.register_buffer('embedding', torch.zeros(size, width))
        self.register_buffer('key', torch.full((size,), -1, dtype=torch.long))
        self.register_buffer('pushed', torch.zeros((), dtype=torch.long))        # how many, ever

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
