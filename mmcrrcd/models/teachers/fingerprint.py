"""What a teacher's answers depend on, as values of JSON's kinds: networks, pipelines and data, in a few digits where they are
large.
"""
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmcrrcd.config import nested

WHOLE = 2 * 2**30            # bytes of images that are hashed whole
HASHED = 20_000              # images that are hashed of larger sets


def digest(value) -> str:
    """Sixteen digits that differ where a value of JSON's kinds does."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def digest_of_weights(weights: dict[str, Tensor], network: nn.Module | None = None) -> str:
    """Sixteen digits that differ where weights do, or files that a network runs (``file`` of :class:`OnnxNetwork`)."""
    sha = hashlib.sha256()
    for name, value in sorted(weights.items()):
        sha.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    for part in () if network is None else network.modules():
        if isinstance(getattr(part, 'file', None), str):
            sha.update(Path(part.file).read_bytes())
    return sha.hexdigest()[:16]


def named(config):
    """A config as values of JSON's kinds: classes and functions by their names, files without their folders."""
    if isinstance(config, dict):
        return {str(key): Path(value).name if key in ('file', 'checkpoint') and isinstance(value, str) else
                value.rsplit('.', 1)[-1] if key == 'type' and isinstance(value, str) else named(value)
                for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [named(value) for value in config]
    return config if config is None or isinstance(config, (bool, int, float, str)) else getattr(config, '__name__', str(config))


def pipelines_in(config) -> list:
    """All pipelines of a data set's config and of the data sets in it, without what only packs or makes the student's image."""
    return [[step for step in named(part['pipeline'] or []) if step['type'] not in ('PackInputs', 'ResolutionPair')]
            for part in nested(config) if 'pipeline' in part]


def digest_of_data(dataset: Dataset) -> str:
    """Sixteen digits that differ where images or labels do; of very large sets evenly spaced images count.

    Of mmpretrain's data sets count what they say of each image, and the sizes of the files.
    """
    sha, number = hashlib.sha256(f'{len(dataset)}'.encode()), len(dataset)
    rows = np.unique(np.linspace(0, number - 1, min(number, HASHED)).astype(int))
    arrays = getattr(dataset, 'arrays', dataset)
    if hasattr(arrays, 'images'):
        images = arrays.images
        if images.numel() > WHOLE:
            images = images[torch.from_numpy(rows).to(images.device)]
        sha.update(np.ascontiguousarray(images.cpu().numpy()).data)
        sha.update(arrays.labels.cpu().numpy().tobytes())
    elif hasattr(dataset, 'get_data_info'):
        for row in rows.tolist():
            info = dataset.get_data_info(row)
            for value in (value for value in info.values() if isinstance(value, np.ndarray)):
                sha.update(np.ascontiguousarray(value).data)
            if file := info.get('img_path'):
                sha.update(f'{Path(file).parent.name}/{Path(file).name} {os.path.getsize(file)}'.encode())
            sha.update(f'{info.get("gt_label")}'.encode())
    return sha.hexdigest()[:16]
