"""Trainings of one seed see the same batches, crops and flips, whatever their losses draw."""
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

import tiny
from experiments.compose import paired
from mmcrrcd.models.losses.base import DistillLoss
from mmcrrcd.registry import LOSSES


@LOSSES.register_module(force=True)
class DrawsNumbers(DistillLoss):
    """A loss of zero that draws random numbers."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def forward(self, student, teacher, batch):
        torch.rand(self.number)
        return 0 * student.logits.sum()


class Watch(Hook):
    """Keeps what the student saw, the positions of the images, and its first weights."""

    def __init__(self):
        self.seen, self.first = [], None

    def before_train(self, runner):
        preprocessor = runner.model.data_preprocessor
        self.first = {key: value.clone() for key, value in runner.model.student.state_dict().items()}
        own = preprocessor.forward

        def watched(data, training=False):
            result = own(data, training)
            if training:
                self.seen.append((result['inputs'].low.clone(), result['data_samples'].index.clone()))
            return result
        preprocessor.forward = watched


def watched(tmp_path, number: int, seed: int) -> Watch:
    draws = dict(draws=dict(type='mmcrrcd.DrawsNumbers', number=number))
    model = tiny.crrcd(tiny.write_teacher(tmp_path / 'teacher.pth'), objective=draws)
    if number == 1:
        model = dict(model, num_anchors=2)
    cfg = paired(tiny.config(tmp_path / f'{number}_{seed}', model, epochs=2), seed)
    runner, watch = Runner.from_cfg(cfg), Watch()
    runner.register_hook(watch)
    runner.train()
    return watch


def test_the_same_seed_gives_the_same_batches_crops_flips_and_first_weights(tmp_path):
    a, b, other = watched(tmp_path, 1, 5), watched(tmp_path, 100, 5), watched(tmp_path, 100, 6)
    assert len(a.seen) == len(b.seen) == 6
    for (low, index), (other_low, other_index) in zip(a.seen, b.seen):
        assert torch.equal(index, other_index) and torch.equal(low, other_low)
    assert all(torch.equal(value, b.first[key]) for key, value in a.first.items())
    assert not torch.equal(a.seen[0][0], other.seen[0][0])
    assert any(not torch.equal(value, other.first[key]) for key, value in a.first.items())
    assert not torch.equal(a.seen[0][0], a.seen[3][0])   # another epoch
