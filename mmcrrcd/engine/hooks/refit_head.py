"""The classifier, fitted anew to the trained backbone."""
import torch
from mmengine import dist
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import MMLogger
from mmpretrain.models import LinearClsHead
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import InputError, check_positive
from mmcrrcd.models.algorithms.distiller import Distiller
from mmcrrcd.models.losses.kd import kd_loss
from mmcrrcd.models.networks import extract, unwrapped
from mmcrrcd.registry import HOOKS
from mmcrrcd.structures import Batch

ROWS = 16384                                             # of embeddings that are looked at together


@HOOKS.register_module()
class RefitHeadHook(Hook):
    """After the last epoch, gives the student the linear classifier that fits its frozen embedding best.

    Where relations lead the backbone, its classifier lags behind: it learned on embeddings that were still changing. The
    objective is ``cls_weight`` CE + ``kd_weight`` KD + ``decay`` times ``|W|^2`` for standardized embeddings in eval mode. It
    is convex, so L-BFGS finds the minimum; no other weight changes. Checkpoint and test of the last epoch are of the new
    classifier.

    Args:
        cls_weight, kd_weight, temperature: of the objective; without a teacher's logits, or without labels, only the other part
            remains.
        passes: through the training data, for several augmentations of each image.
        samples: stops the passes after so many images, of all processes together; memory is 4 x samples x (width of the
            embedding + classes) bytes.
        iterations: of L-BFGS, at most.
        decay: of the weights for embeddings with variance 1.
    """

    priority = 'VERY_HIGH'                               # before the weights are looked at and saved

    def __init__(self, cls_weight: float = 0.1, kd_weight: float = 0.9, temperature: float = 4.0, passes: int = 4,
                 samples: int = 400_000, iterations: int = 40, decay: float = 1e-3):
        check_positive(temperature=temperature)
        check_positive(whole=True, passes=passes, samples=samples, iterations=iterations)
        self.cls_weight, self.kd_weight, self.temperature = cls_weight, kd_weight, temperature
        self.passes, self.samples, self.iterations, self.decay = passes, samples, iterations, decay

    def before_train(self, runner) -> None:
        """Refuses models whose head it cannot fit."""
        model = unwrapped(runner.model)
        if not isinstance(model, Distiller) or type(model.student.head) is not LinearClsHead:
            raise InputError('RefitHeadHook fits the LinearClsHead of the student of a Distiller; leave it out for others')
        if any(isinstance(hook, EMAHook) for hook in runner.hooks):
            raise InputError('RefitHeadHook and EMAHook do not go together: the averaged weights would keep the old classifier')

    def after_train_epoch(self, runner) -> None:
        """After the last epoch: fits the head to the embeddings of the training images."""
        if runner.epoch + 1 < runner.max_epochs:
            return
        model = unwrapped(runner.model)
        embedding, labels, teacher = self.collect(model, runner)
        before, after = self.fit(model.student.head.fc, embedding, labels, teacher)
        MMLogger.get_current_instance().info(f'the classifier was fitted anew: its objective fell from {before:.4f} to '
                                             f'{after:.4f}')

    @torch.no_grad()
    def collect(self, model: Distiller, runner) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Embeddings (N, D) of the training images, their labels and the teacher's logits, of this process."""
        loader, parts, training = runner.train_dataloader, [], model.training
        left = -(-self.samples // dist.get_world_size())
        model.eval()
        for number in range(self.passes):
            for each in (loader.sampler, loader.dataset):
                if hasattr(each, 'set_epoch'):           # another order, another view
                    each.set_epoch(runner.epoch + number)
            for data in loader:
                if left <= 0:
                    break
                data = model.data_preprocessor(data, training=True)
                batch = Batch.of(data['data_samples'])
                teacher = batch.teacher or model.forward_teacher(data['inputs'].high)
                parts.append((extract(model.student, data['inputs'].low).embedding, batch.labels, teacher and teacher.logits))
                left -= len(parts[-1][0])
        model.train(training)
        return tuple(None if each[0] is None else torch.cat(each) for each in zip(*parts))

    def fit(self, layer: nn.Linear, embedding: Tensor, labels: Tensor | None, teacher: Tensor | None) -> tuple[float, float]:
        """Sets weight and bias of ``layer``; the objective before and after."""
        number, mean, square = total(len(embedding), embedding.sum(0), embedding.square().sum(0))
        mean = mean / number
        scale = (square / number - mean.square()).clamp(min=0).sqrt() + 1e-3
        x = (embedding - mean) / scale
        weight = (layer.weight.detach() * scale).requires_grad_()
        bias = (layer.bias + layer.weight @ mean).detach().requires_grad_()
        lbfgs = torch.optim.LBFGS([weight, bias], max_iter=self.iterations, line_search_fn='strong_wolfe')

        def objective() -> Tensor:
            lbfgs.zero_grad()
            value = 0
            for rows in torch.arange(len(x), device=x.device).split(ROWS):
                part = self.loss(F.linear(x[rows], weight, bias), labels if labels is None else labels[rows],
                                 teacher if teacher is None else teacher[rows]) * len(rows) / number
                part.backward()
                value = value + part.detach()
            value, weight.grad, bias.grad = total(value, weight.grad, bias.grad)
            weight.grad += 2 * self.decay * weight.detach()
            return value + self.decay * weight.detach().square().sum()

        with torch.enable_grad():
            before = float(objective())
            lbfgs.step(objective)
            after = float(objective())
        with torch.no_grad():
            layer.weight.copy_(weight / scale)
            layer.bias.copy_(bias - layer.weight @ mean)
        return before, after

    def loss(self, logits: Tensor, labels: Tensor | None, teacher: Tensor | None) -> Tensor:
        """CE and KD, Eq. 12, of (N, classes) logits, weighted."""
        parts = []
        if labels is not None and self.cls_weight:
            parts.append(self.cls_weight * F.cross_entropy(logits, labels))
        if teacher is not None and self.kd_weight:
            parts.append(self.kd_weight * kd_loss(logits, teacher, self.temperature))
        if not parts:
            raise InputError('RefitHeadHook needs labels or the logits of a teacher, and a weight for them')
        return sum(parts)


def total(*values) -> tuple:
    """The sums over all processes."""
    if dist.get_world_size() == 1:
        return values
    values = [torch.as_tensor(value).clone() for value in values]
    for value in values:
        dist.all_reduce(value)
    return tuple(values)
