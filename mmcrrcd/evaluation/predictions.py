"""Every prediction of a test, kept for a file."""
import json
from pathlib import Path

import numpy as np
from mmengine.evaluator import BaseMetric

from mmcrrcd.errors import InputError
from mmcrrcd.files import whole_file, write_whole
from mmcrrcd.registry import METRICS


@METRICS.register_module()
class KeepPredictions(BaseMetric):
    """Writes what the network says of each test image, as ``DumpResults`` of mmengine does, without pickle.

    For each image: ``sample_idx``, its place in the test data, ``img_path`` where it is a file, ``gt_label``, ``pred_label``
    and ``pred_score``, the probabilities. A file ``.json`` has a list of these under ``predictions``. In a file ``.npz`` each
    is an array over the images, and ``pred_score`` is (N, classes). ``classes`` are their names, where the data tell them.

    Args:
        file: ending in .json or .npz.

    Raises:
        InputError: another ending.
    """

    def __init__(self, file: str, collect_device: str = 'cpu', prefix: str | None = None):
        super().__init__(collect_device, prefix)
        if Path(file).suffix not in ('.json', '.npz'):
            raise InputError(f'{file}: predictions go to a file .json or .npz')
        self.file = Path(file)

    def process(self, data_batch: dict, data_samples: list) -> None:
        """Takes whole batches of the in-memory pipeline, and samples of mmpretrain's."""
        for sample in data_samples:
            if 'logits' in sample:
                scores, labels = sample['logits'].float().softmax(1).cpu().numpy(), sample['labels'].tolist()
                for i, label, score in zip(data_batch['index'].tolist(), labels, scores):
                    self.results.append(self.entry(i, None, label, score))
            else:
                label = sample['gt_label'].tolist() if 'gt_label' in sample else [-1]
                self.results.append(self.entry(sample['sample_idx'], sample.get('img_path'), *label[:1],
                                               sample['pred_score'].float().cpu().numpy()))

    @staticmethod
    def entry(index: int, path: str | None, label: int, score: np.ndarray) -> dict:
        """One image."""
        told = {} if path is None else dict(img_path=str(path))
        return dict(sample_idx=int(index), **told, gt_label=int(label), pred_label=int(score.argmax()), pred_score=score)

    def compute_metrics(self, results: list[dict]) -> dict:
        """Writes the file, in the order of the test data; in the main process only, which mmengine calls."""
        results = sorted(results, key=lambda each: each['sample_idx'])
        classes = list((self.dataset_meta or {}).get('classes') or ())
        if self.file.suffix == '.npz':
            arrays = {key: np.array([each[key] for each in results]) for key in results[0]}
            with whole_file(self.file) as file:
                np.savez_compressed(file, **arrays, classes=np.array(classes, dtype=str))
        else:
            rows = [each | dict(pred_score=each['pred_score'].tolist()) for each in results]
            write_whole(self.file, json.dumps(dict(classes=classes, predictions=rows)) + '\n')
        return {}
