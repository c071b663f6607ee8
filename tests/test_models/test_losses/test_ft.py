"""Factor transfer against loops and the published value, and its two stages."""
import math

import numpy as np
import pytest
import torch
from distil_step import build, network_without_maps, random
from mmcrrcd.errors import InputError
from mmcrrcd.models import FTLoss, factor_loss
from mmengine.logging import MessageHub
from tiny import CLASSES, SIZE
from torch import nn
from torch.nn import functional as F
from utils import GOLDEN


@pytest.fixture
def set_epoch():
    hub = MessageHub.get_current_instance()
    before = hub.get_info('epoch', 0)
    yield lambda epoch: hub.update_info('epoch', epoch)
    hub.update_info('epoch', before)


def slow(student, teacher):
    def factor(image):
        channels, height, width = image.shape
        values = [sum(image[c, y, x].item()**2 for c in range(channels)) / channels
                  for y in range(height) for x in range(width)]
        return [v / math.sqrt(sum(w * w for w in values)) for v in values]

    return float(np.mean([[abs(a - b) for a, b in zip(factor(s), factor(t))] for s, t in zip(student, teacher)]))


def test_equals_loops():
    student, teacher = random(3, 4, 2, 3), random(3, 5, 2, 3, seed=1)
    assert factor_loss(student, teacher).item() == pytest.approx(slow(student, teacher), rel=1e-10)
    larger = random(3, 5, 4, 6, seed=2)
    assert factor_loss(student, larger).item() == pytest.approx(slow(student, F.avg_pool2d(larger, 2)), rel=1e-10)
    assert factor_loss(larger, student).item() == pytest.approx(slow(F.avg_pool2d(larger, 2), student), rel=1e-10)


def test_equals_the_published_value():
    data = {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN / 'reference.npz').items()}
    value = factor_loss(data['map_s2'], data['map_t_same'])
    torch.testing.assert_close(value, data['out_ft_factor'], rtol=0, atol=1e-9)


def test_gradients():
    student, teacher = random(2, 3, 2, 2).requires_grad_(), random(2, 4, 2, 2, seed=1)
    assert torch.autograd.gradcheck(lambda s: factor_loss(s, teacher), student)


def test_paraphraser_and_translator_are_the_published_ones():
    loss = build(dict(type='mmcrrcd.FTLoss')).losses['method']                   # last feature maps of 16 and 32 channels
    def convolutions(network):
        assert [m.negative_slope for m in network if isinstance(m, nn.LeakyReLU)] == [0.1] * 3
        return [(m.in_channels, m.out_channels) for m in network if not isinstance(m, (nn.LeakyReLU, nn.BatchNorm2d))]
    assert convolutions(loss.encoder) == [(32, 32), (32, 16), (16, 16)]
    assert convolutions(loss.decoder) == [(16, 16), (16, 32), (32, 32)]
    assert convolutions(loss.translator) == [(16, 16), (16, 16), (16, 16)]
    assert all(isinstance(m, nn.ConvTranspose2d) for m in loss.decoder[::2])
    assert [isinstance(m, nn.BatchNorm2d) for m in loss.translator] == [False, True, False] * 3
    assert not any(isinstance(m, nn.BatchNorm2d) for m in [*loss.encoder, *loss.decoder])


@pytest.mark.parametrize('amp', [False, True])
def test_the_two_stages(set_epoch, amp):
    """Only the paraphraser learns, then all but the paraphraser; the rest keeps its values, weight decay or not."""
    model = build(dict(type='mmcrrcd.FTLoss', paraphraser_epochs=2)).train()
    data = model.data_preprocessor(dict(
        inputs=torch.randint(0, 256, (8, 3, SIZE, SIZE), dtype=torch.uint8), labels=torch.arange(8) % CLASSES,
        index=torch.arange(8)), training=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    parts = {name: list(part.parameters()) for name, part in dict(
        student=model.student.backbone, translator=model.losses['method'].translator, encoder=model.losses['method'].encoder,
        decoder=model.losses['method'].decoder).items()}
    reconstructions = []
    for epoch, learning in ((0, {'encoder', 'decoder'}), (1, {'encoder', 'decoder'}), (2, {'student', 'translator'})):
        set_epoch(epoch)
        before = {name: [p.detach().clone() for p in part] for name, part in parts.items()}
        optimizer.zero_grad()
        with torch.autocast('cpu', torch.bfloat16, enabled=amp):
            value = model(**data, mode='loss')['loss_method']
        assert value.dtype == torch.float32 and value.isfinite() and value > 0
        value.backward()
        optimizer.step()
        for name, part in parts.items():
            changed = [not torch.equal(p, b) for p, b in zip(part, before[name])]
            assert all(changed) if name in learning else not any(changed), (epoch, name)
        reconstructions.append(value.item())
    assert reconstructions[1] < reconstructions[0]


def test_the_first_stage_is_the_error_of_the_reconstruction():
    model = build(dict(type='mmcrrcd.FTLoss', paraphraser_epochs=1, rate=0.25))
    loss, images = model.losses['method'].double(), torch.rand(2, 3, SIZE, SIZE)
    teacher = model.forward_teacher(images)._replace(feature_maps=[random(2, 32, 2, 2)])
    factor = loss.encoder(teacher.feature_maps[-1])
    rebuilt = loss.decoder(factor)
    assert factor.shape == (2, 8, 2, 2)
    loss.set_epoch(0)
    squares = [(a - b)**2 for a, b in zip(rebuilt.flatten().tolist(), teacher.feature_maps[-1].flatten().tolist())]
    assert loss(None, teacher, None).item() == pytest.approx(sum(squares) / len(squares), rel=1e-10)
    loss.set_epoch(1)
    student = teacher._replace(feature_maps=[random(2, 16, 2, 2, seed=1)])
    expected = slow(loss.translator(student.feature_maps[-1]).detach(), factor.detach())
    assert loss(student, teacher, None).item() == pytest.approx(expected, rel=1e-10)
    small = student._replace(image_size=(SIZE // 2, SIZE // 2))     # as feature maps that are repeated to the teacher's size
    repeated = [F.interpolate(loss_map.square().mean(1, keepdim=True).sqrt(), scale_factor=2).detach()
                for loss_map in (loss.translator(student.feature_maps[-1]), factor)]
    assert loss(small, teacher, None).item() == pytest.approx(slow(*repeated), rel=1e-10)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match='gives none'):
        build(dict(type='mmcrrcd.FTLoss'), teacher=network_without_maps())
    with pytest.raises(InputError, match=r'more than one, got \[1, 1\] for the student, \[4, 4\] for the teacher'):
        build(dict(type='mmcrrcd.FTLoss'), resolution=4)
    with pytest.raises(InputError, match="^rate=0.01 of the 32 channels of the teacher's last feature map leaves no factor$"):
        build(dict(type='mmcrrcd.FTLoss', rate=0.01))
    with pytest.raises(InputError, match='^rate is a positive number'):
        FTLoss(rate=0)
    for epochs in (29.5, -3):
        with pytest.raises(InputError, match='^paraphraser_epochs is a positive whole number'):
            FTLoss(paraphraser_epochs=epochs)
    assert FTLoss().paraphraser_epochs == 30
