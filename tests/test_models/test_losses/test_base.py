"""The contract of a loss: its defaults, and what they are for."""
import torch
from mmcrrcd.models.losses import DistillLoss
from torch import nn


def test_a_loss_that_declares_nothing_reads_the_teachers_embedding_and_trains_the_student_from_the_start():
    loss = DistillLoss()
    assert loss.needs == {'embedding'} and not loss.student_needs and loss.needs_teacher
    assert loss.student_from == 0 and not loss.staged and loss.num_samples is None and loss.log_vars == {}
    loss.build(None, None), loss.set_epoch(3), loss.check_batch(10**9)       # nothing to do, and nothing refused


def test_a_loss_with_buffers_is_not_compiled():
    class Plain(DistillLoss):
        def forward(self, student, teacher, batch):
            return student

    kept = Plain()
    kept.register_buffer('last', torch.zeros(1))
    plain = Plain()
    plain.scale = nn.Parameter(torch.ones(1))
    for loss in (kept, plain):
        loss.compile(backend='eager')
    assert kept._compiled_call_impl is None and plain._compiled_call_impl is not None


def test_the_log_of_one_loss_is_not_that_of_another():
    first, second = DistillLoss(), DistillLoss()
    first.log_vars['score'] = torch.ones(())
    assert not second.log_vars
