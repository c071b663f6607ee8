"""What a network says of many images: embeddings, logits, and how many of its answers are right."""
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from mmengine.device import get_device
from rich.console import Console
from rich.progress import track
from torch import Tensor

from mmcrrcd.datasets import ImageArrays
from mmcrrcd.errors import InputError

from .classifier import Classifier


def embed(classifier: Classifier, data: ImageArrays, name: str, batch: int = 500) -> tuple[Tensor, Tensor | None]:
    """Embeddings (N, D) and logits (N, classes) of all images, on the device; shows the progress of ``name`` on stderr.

    The logits are None where the network ends in its embedding.
    """
    device, embeddings, logits = get_device(), [], []
    index = torch.arange(len(data))
    for part in track(index.split(batch), name, console=Console(stderr=True)):
        output = classifier(data.__getitems__(part)['inputs'].to(device))
        embeddings.append(output.embedding)
        logits.append(output.logits)
    return torch.cat(embeddings), None if logits[0] is None else torch.cat(logits)


def embed_blocks(classifier: Classifier, blocks: Iterable[np.ndarray], flip: bool = False) -> Iterator[Tensor]:
    """Embeddings (n, D), on the device, of blocks of RGB images (N_i, H, W, 3) uint8; one block at a time is held.

    No logits are kept, which for face networks are many.

    Args:
        flip: the sum of the embeddings of an image and of its mirror, the flip test of face recognition.
    """
    for block in blocks:
        for part in torch.from_numpy(block).split(128):
            images = part.to(get_device()).permute(0, 3, 1, 2)
            embedding = classifier(images).embedding
            yield embedding + classifier(images.flip(3)).embedding if flip else embedding


def embed_images(classifier: Classifier, images: np.ndarray, name: str, flip: bool = False) -> Tensor:
    """:func:`embed_blocks` of all images (N, H, W, 3), as one tensor (N, D); shows the progress of ``name`` on stderr."""
    starts = track(range(0, len(images), 128), name, console=Console(stderr=True))
    return torch.cat(list(embed_blocks(classifier, (images[start:start + 128] for start in starts), flip)))


def accuracy(classifier: Classifier, data: ImageArrays, name: str) -> float:
    """Percent of the images whose class has the largest logit."""
    _, logits = embed(classifier, data, name)
    if logits is None:
        raise InputError(f'{name} ends in its embedding: it knows no classes')
    classes = len(data.metainfo['classes'])
    if logits.shape[1] != classes:
        raise InputError(f'{name} knows {logits.shape[1]} classes, the data have {classes}')
    return 100 * (logits.argmax(1) == data.labels.to(logits.device)).float().mean().item()
