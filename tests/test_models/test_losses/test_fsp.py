"""FSP matrices against loops and the published values."""
import numpy as np
import pytest
import torch
from distil_step import build, network_without_maps, random, outputs
from mmcrrcd.errors import InputError
from mmcrrcd.models import FSPLoss, fsp_loss
from tiny import CLASSES, SIZE, TEACHER, network
from torch.nn import functional as F
from utils import GOLDEN


def slow_flow(first, second):
    """[n][c1][c2] for feature maps of one size."""
    pixels = first[0, 0].numel()
    return [[[sum(x * y for x, y in zip(a.flatten().tolist(), b.flatten().tolist())) / pixels for b in image_b]
             for a in image_a] for image_a, image_b in zip(first, second)]


def slow(student, teacher):
    return float(np.mean((np.array(slow_flow(*student)) - np.array(slow_flow(*teacher)))**2))


def test_equals_loops():
    student = random(2, 3, 4, 4), random(2, 5, 4, 4, seed=1)
    teacher = random(2, 3, 2, 6, seed=2), random(2, 5, 2, 6, seed=3)               # at another resolution
    assert fsp_loss(student, teacher).item() == pytest.approx(slow(student, teacher), rel=1e-10)


@pytest.mark.parametrize('larger', [0, 1])
def test_the_larger_map_is_averaged(larger):
    student, teacher = ([random(2, 3, 2, 2, seed=i), random(2, 5, 2, 2, seed=i + 1)] for i in (0, 2))
    small = [list(student), list(teacher)]
    for maps, averaged, seed in zip((student, teacher), small, (4, 5)):
        maps[larger] = random(*maps[larger].shape[:2], 4, 4, seed=seed)
        averaged[larger] = F.avg_pool2d(maps[larger], 2)
    assert fsp_loss(student, teacher).item() == pytest.approx(slow(*small), rel=1e-10)


def test_equals_the_published_values():
    data = np.load(GOLDEN / 'reference.npz')
    maps_s, maps_t = ([torch.from_numpy(data[f'{kind}{i}']) for i in range(3)] for kind in ('map_s', 'fsp_t'))
    ours = [fsp_loss(maps_s[i:i + 2], maps_t[i:i + 2]) for i in range(2)]
    np.testing.assert_allclose(ours, data['out_fsp_per_pair'], rtol=0, atol=1e-9)
    student, teacher, batch = outputs(maps_s, maps_t)
    torch.testing.assert_close(FSPLoss()(student, teacher, batch), sum(ours))


def test_gradients():
    student = random(2, 3, 4, 4).requires_grad_(), random(2, 2, 2, 2, seed=1).requires_grad_()
    teacher = random(2, 3, 4, 4, seed=2), random(2, 2, 2, 2, seed=3)
    assert torch.autograd.gradcheck(lambda a, b: fsp_loss((a, b), teacher), student)


@pytest.mark.parametrize('teacher, message', [
    (TEACHER, 'feature maps of the same channels'), (network_without_maps(), 'this teacher gives none')])
def test_other_channels_are_refused(teacher, message):
    with pytest.raises(InputError, match=message) as error:
        build(dict(type='mmcrrcd.FSPLoss'), teacher=teacher)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('amp', [False, True])
def test_a_step(amp):
    model = build(dict(type='mmcrrcd.FSPLoss'), teacher=network()).train()         # random weights of its own
    data = dict(inputs=torch.randint(0, 256, (8, 3, SIZE, SIZE), dtype=torch.uint8), labels=torch.arange(8) % CLASSES,
                index=torch.arange(8))
    with torch.autocast('cpu', torch.bfloat16, enabled=amp):
        value = model(**model.data_preprocessor(data, training=True), mode='loss')['loss_method']
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and value > 0
    assert all(p.grad.abs().sum() > 0 for p in model.student.backbone.stages.parameters())
