"""Arrays as a data set of mmpretrain."""
from collections.abc import Sequence

import torch
from mmpretrain.datasets import BaseDataset

from mmcrrcd.errors import InputError
from mmcrrcd.registry import DATASETS

from .images import ImageArrays


@DATASETS.register_module()
class PipelineArrays(BaseDataset):
    """Any :class:`ImageArrays` one sample at a time, through a pipeline of mmpretrain: the mmpretrain pipeline for this
    package's data.

    The pipeline begins with the image itself, so it needs no ``LoadImageFromFile``; images are RGB (``to_rgb=False``). The
    arrays are shared, not copied, with a data loader's workers.

    Args:
        arrays: a data set of this package or its config, on the CPU.
        pipeline: transforms, ``PackInputs`` last.
        options: of mmpretrain's ``BaseDataset``, such as ``indices`` and ``test_mode``.

    Example:
        >>> dataset = PipelineArrays(dict(type='mmcrrcd.GlyphArrays', split='test'), pipeline=[dict(type='PackInputs')])
    """

    def __init__(self, arrays: dict | ImageArrays, pipeline: Sequence = (), **options):
        self.arrays = DATASETS.build(arrays) if isinstance(arrays, dict) else arrays
        if self.arrays.images.device != torch.device('cpu'):
            raise InputError(f"a pipeline needs images on the CPU, these are on {self.arrays.images.device}: say device='cpu'")
        super().__init__(ann_file='', metainfo=dict(self.arrays.metainfo), pipeline=pipeline, **options)

    def load_data_list(self) -> list[dict]:
        """A dict for each image: its row in the arrays, and its label."""
        return [dict(row=row, gt_label=label) for row, label in enumerate(self.arrays.labels.tolist())]

    def get_data_info(self, idx: int) -> dict:
        """What the pipeline starts from: a copy of the image, its size and label."""
        info = super().get_data_info(idx)
        image = self.arrays.images[info.pop('row')].clone().numpy()     # transforms may write to it
        return info | dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
