"""Top-k accuracy of whole batches."""
import torch
from mmengine.evaluator import BaseMetric

from mmcrrcd.registry import METRICS


@METRICS.register_module()
class BatchAccuracy(BaseMetric):
    """Top-k accuracy in percent, for the in-memory pipeline: one dict of tensors a batch instead of one object a sample.

    Expects ``data_samples = [dict(logits=(N, classes), labels=(N,))]``, which the algorithms of this package return.
    """

    default_prefix = 'accuracy'

    def __init__(self, topk: tuple[int, ...] = (1, 5), collect_device: str = 'cpu', prefix: str | None = None):
        super().__init__(collect_device, prefix)
        self.topk = topk

    def process(self, data_batch, data_samples: list[dict]) -> None:
        """Keeps the rank of the right class of each sample, on the device."""
        for batch in data_samples:
            logits, labels = batch['logits'], batch['labels']
            of_truth = logits.gather(1, labels[:, None])
            # Classes that did not score below the right one; NaN and ties count against the network.
            self.results.append((~(logits < of_truth)).sum(1).sub(1))

    def evaluate(self, size: int) -> dict[str, float]:
        """Fetches the ranks, and computes the metrics."""
        self.results = torch.cat(self.results).tolist() if self.results else []      # the one wait for the device
        return super().evaluate(size)

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        """Accuracies in percent."""
        return {f'top{k}': 100 * sum(rank < k for rank in results) / len(results) for k in self.topk}
