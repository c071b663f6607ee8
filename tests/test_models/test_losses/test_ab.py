"""Activation boundaries against loops and the published values, and the pre-activations that they need."""
import numpy as np
import pytest
import torch
from distil_step import build, network_without_maps, random, step, outputs
from mmcrrcd.errors import InputError
from mmcrrcd.models import ABLoss, Distiller, PairPreprocessor, ab_loss
from mmengine.logging import MessageHub
from mmpretrain.models import ResNet_CIFAR
from tiny import CLASSES, MEAN, SIZE, STD, STUDENT, TEACHER
from torch import nn
from utils import GOLDEN


def slow(student, teacher, margin=1.0):
    """Element by element."""
    total = 0
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist()):
        if t > 0 and s <= margin:
            total += (s - margin)**2
        if t <= 0 and s > -margin:
            total += (s + margin)**2
    return 3 * total / 1000 / len(student)


def repeat(x, times):
    return x.repeat_interleave(times, 2).repeat_interleave(times, 3)


@pytest.mark.parametrize('margin', [1.0, 0.3])
def test_equals_loops(margin):
    student, teacher = 2 * random(3, 4, 2, 3), random(3, 4, 2, 3, seed=1)
    expected = pytest.approx(slow(student, teacher, margin), rel=1e-10)
    assert ab_loss(student, teacher, margin).item() == expected
    assert ab_loss(student, teacher.relu(), margin).item() == expected            # after its ReLU: the same signs


def test_equals_the_published_values():
    data = np.load(GOLDEN / 'reference.npz')
    ours = []
    for i in range(3):                                    # of the first 8 channels, as many as the narrowest map has
        student, teacher = (torch.from_numpy(data[f'map_{kind}{i}'])[:, :8] for kind in 'st')
        ours.append(2.0**(i - 2) * ab_loss(student, teacher, margin=1.0))
    np.testing.assert_allclose(ours, data['out_ab_per_stage'], rtol=0, atol=1e-9)


def test_gradients():
    student, teacher = random(2, 3, 2, 2).requires_grad_(), random(2, 3, 2, 2, seed=1)
    assert torch.autograd.gradcheck(lambda s: ab_loss(s, teacher, 1.0), student)


def call(pre_s, maps_t, pre_t=(), loss=None):
    """Three stages, of which the last two have one size; the stem's feature maps come from nowhere."""
    stem = torch.zeros(2, 1, *pre_s[0].shape[2:])
    student, teacher, batch = outputs([stem, *(x.relu() for x in pre_s)], [torch.zeros(2, 1, *maps_t[0].shape[2:]), *maps_t])
    student, teacher = student._replace(pre_activations=tuple(pre_s)), teacher._replace(pre_activations=tuple(pre_t))
    sizes = [tuple(s.feature_maps[0].shape[2:]) for s in (student, teacher)]
    student, teacher = student._replace(image_size=sizes[0]), teacher._replace(image_size=sizes[1])
    if loss is None:
        loss = ABLoss()
        loss.build(student, teacher)
    return loss.double(), loss.double()(student, teacher, batch)


def stage_maps(channels, size, seed=0):
    return [random(2, channels, size // 2**min(i, 1), size // 2**min(i, 1), seed=seed + i) for i in range(3)]


def test_later_stages_weigh_more():
    pre_s, maps_t = stage_maps(3, 4), stage_maps(3, 4, seed=5)
    loss, value = call(pre_s, maps_t)
    assert all(isinstance(connector, nn.Identity) for connector in loss.connectors)
    expected = sum(w * slow(s, t) for w, s, t in zip((0.25, 0.5, 1), pre_s, maps_t))
    assert value.item() == pytest.approx(expected, rel=1e-10)


def test_pre_activations_of_the_teacher_come_first():
    """A WRN's feature maps are before a norm, so their signs are not those of its neurons."""
    pre_s, pre_t = stage_maps(3, 4), stage_maps(3, 4, seed=5)
    _, value = call(pre_s, [-x for x in pre_t], pre_t)
    assert value.item() == pytest.approx(sum(w * slow(s, t) for w, s, t in zip((0.25, 0.5, 1), pre_s, pre_t)), rel=1e-10)


def test_a_larger_map_of_the_student_is_averaged():
    pre_s, maps_t = stage_maps(3, 4), stage_maps(3, 8, seed=5)
    low = [x[:, :, ::2, ::2] for x in maps_t]
    low_s = [nn.functional.avg_pool2d(repeat(x, 2) + random(2, 3, *(2 * n for n in x.shape[2:])), 2) for x in pre_s]
    large = [repeat(x, 2) + random(2, 3, *(2 * n for n in x.shape[2:])) for x in pre_s]
    expected = sum(w * slow(s, t) for w, s, t in zip((0.25, 0.5, 1), low_s, low))
    assert call(large, low)[1].item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize('channels', [3, 5])
def test_a_larger_map_of_the_teacher_is_read_off_by_a_weight_for_each_of_its_neurons(channels):
    pre_s, maps_t = stage_maps(3, 4), stage_maps(channels, 8, seed=5)
    loss, value = call(pre_s, maps_t)
    connected = []
    for pre_activation, (convolution, norm) in zip(pre_s, (c[1:] for c in loss.connectors), strict=True):
        n, _, height, width = pre_activation.shape
        x = torch.einsum('nchw,cdyx->ndhywx', pre_activation, convolution.weight).reshape(n, channels, 2 * height, 2 * width)
        x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, unbiased=False) + norm.eps).sqrt()
        connected.append(x.detach())
    expected = sum(w * slow(s, t) for w, s, t in zip((0.25, 0.5, 1), connected, maps_t))
    assert value.item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize('size, size_t, times', [
    ((8, 32), (32, 32), (4, 1)), ((12, 12), (32, 32), (3, 3)), ((16, 12), (112, 96), (7, 8)), ((8, 8), (32, 32), (4, 4))])
def test_sizes_that_are_no_multiples_and_batches_of_other_resolutions(size, size_t, times):
    pre_s, maps_t = [random(2, 3, *size)], [random(2, 3, *size_t, seed=1)]
    student, teacher, batch = outputs(pre_s, maps_t)
    student = student._replace(pre_activations=tuple(pre_s), image_size=size, has_stem=False)
    teacher = teacher._replace(image_size=size_t, has_stem=False)
    loss = ABLoss()
    loss.build(student, teacher)
    connector = loss.double().connectors[0]
    assert connector[1].kernel_size == connector[1].stride == times
    for pixels in (size, (4, 4), (32, 32)):
        pre_activation = random(2, 3, *pixels, seed=2)
        enlarged = connector(nn.functional.adaptive_avg_pool2d(pre_activation, size))
        assert enlarged.shape[2:] == tuple(n * t for n, t in zip(size, times))
        expected = slow(nn.functional.adaptive_avg_pool2d(enlarged, size_t), maps_t[0])
        value = loss(student._replace(pre_activations=(pre_activation, ), feature_maps=(pre_activation, )), teacher, batch)
        assert value.item() == pytest.approx(expected, rel=1e-10)


def test_signs_that_differ_under_one_pixel_can_be_learned():
    """The map of one pixel stands over 2 x 2 neurons of the teacher, on and off; repetition would have to choose."""
    pre_s = [torch.tensor([[[[1.0]]], [[[-1.0]]]]).double()]
    maps_t = [torch.tensor([[[[1.0, -1.0], [-1.0, 1.0]]]]).double() * pre_s[0]]
    student, teacher, batch = outputs(pre_s, maps_t)
    student = student._replace(pre_activations=tuple(pre_s), image_size=(1, 1), has_stem=False)
    teacher = teacher._replace(pre_activations=(), image_size=(2, 2), has_stem=False)
    loss = ABLoss()
    loss.build(student, teacher)
    loss.double()
    optimizer = torch.optim.SGD(loss.parameters(), lr=10)
    for _ in range(200):
        optimizer.zero_grad()
        value = loss(student, teacher, batch)
        value.backward()
        optimizer.step()
    assert value.item() < 1e-4 < ab_loss(repeat(pre_s[0], 2), maps_t[0], 1.0).item()


def test_connectors_are_a_1x1_convolution_and_a_norm():
    pre_s, maps_t = stage_maps(3, 4), stage_maps(5, 4, seed=5)
    loss, value = call(pre_s, maps_t)
    connected = []
    for pre_activation, (convolution, norm) in zip(pre_s, loss.connectors, strict=True):
        x = torch.einsum('nchw,dc->ndhw', pre_activation, convolution.weight[:, :, 0, 0])
        x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, unbiased=False) + norm.eps).sqrt()
        connected.append(x.detach())
    expected = sum(w * slow(s, t) for w, s, t in zip((0.25, 0.5, 1), connected, maps_t))
    assert value.item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize('amp', [False, True])
def test_a_step(amp):
    model, _ = step(dict(type='mmcrrcd.ABLoss'), amp=amp)
    assert model.student.backbone.gives_pre_activations and model.teacher.backbone.gives_pre_activations
    assert model.student.head.fc.weight.grad is None


def test_the_folded_teacher_gives_pre_activations():
    model = build(dict(type='mmcrrcd.ABLoss'), teacher=TEACHER)
    model.load_teacher()
    output = model.forward_teacher(torch.rand(2, 3, SIZE, SIZE))
    for pre_activation, x in zip(output.pre_activations, output.feature_maps[1:], strict=True):
        assert pre_activation.min() < 0 and torch.equal(pre_activation.relu(), x)


@pytest.mark.parametrize('teacher', [
    dict(type='mmcrrcd.WRNCIFAR', depth=10),
    dict(type=ResNet_CIFAR, depth=18, base_channels=8, out_indices=(0, 1, 2, 3))], ids=['wrn', 'mmpretrain'])
def test_other_teachers(teacher):
    teacher = dict(TEACHER, backbone=teacher, head=dict(TEACHER['head'], in_channels=64))
    model = build(dict(type='mmcrrcd.ABLoss'), teacher=teacher).train()
    data = dict(inputs=torch.randint(0, 256, (4, 3, SIZE, SIZE), dtype=torch.uint8), labels=torch.arange(4) % CLASSES,
                index=torch.arange(4))
    value = model(**model.data_preprocessor(data, training=True), mode='loss')['loss_method']
    value.backward()
    assert value > 0 and all(p.grad.abs().sum() > 0 for p in model.student.backbone.stages[0].parameters())


def test_nobody_pays_for_pre_activations_without_need():
    model = build(dict(type='mmcrrcd.NSTLoss'))
    assert not model.student.backbone.gives_pre_activations and not model.teacher.backbone.gives_pre_activations
    assert model.forward_teacher(torch.rand(2, 3, SIZE, SIZE)).pre_activations == ()


def test_a_stage_of_its_own():
    """AB alone, then the classification alone: connectors keep their values from then on, weight decay or not."""
    hub = MessageHub.get_current_instance()
    epoch = hub.get_info('epoch', 0)
    torch.manual_seed(0)
    model = Distiller(student=STUDENT, teacher=TEACHER, input_size=SIZE, cls_weight=[(0, 0), (2, 0), (2, 1)],
                      objective=dict(ab=dict(type='mmcrrcd.ABLoss', weight=[(0, 1), (2, 1), (2, 0)])),
                      data_preprocessor=PairPreprocessor(mean=MEAN, std=STD, resolution=8)).train()
    data = model.data_preprocessor(dict(
        inputs=torch.randint(0, 256, (8, 3, SIZE, SIZE), dtype=torch.uint8), labels=torch.arange(8) % CLASSES,
        index=torch.arange(8)), training=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    try:
        for now, name in ((0, 'loss_ab'), (1, 'loss_ab'), (2, 'loss_cls'), (3, 'loss_cls')):
            hub.update_info('epoch', now)
            before = [{k: v.clone() for k, v in part.state_dict().items()} for part in (model.losses, model.student.head)]
            optimizer.zero_grad()
            parts = model(**data, mode='loss')
            assert [key for key in parts if key.startswith('loss')] == [name]
            parts[name].backward()
            optimizer.step()
            same = [all(torch.equal(v, old[k]) for k, v in part.state_dict().items())
                    for old, part in zip(before, (model.losses, model.student.head))]
            assert same == [now >= 2, now < 2]
    finally:
        hub.update_info('epoch', epoch)


def test_what_has_no_pre_activations_is_refused():
    backbone = dict(type=ResNet_CIFAR, depth=18, base_channels=8)
    student = dict(STUDENT, backbone=backbone, head=dict(STUDENT['head'], in_channels=64))
    with pytest.raises(InputError, match="ab needs the student's pre-activations, and this student gives none") as error:
        Distiller(student=student, teacher=TEACHER, objective=dict(ab=dict(type='mmcrrcd.ABLoss')), input_size=SIZE,
                  data_preprocessor=PairPreprocessor(mean=MEAN, std=STD, resolution=8))
    assert '\n' not in str(error.value)
    with pytest.raises(InputError, match="needs the teacher's feature maps, and this teacher gives none"):
        build(dict(type='mmcrrcd.ABLoss'), teacher=network_without_maps())
