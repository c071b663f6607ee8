"""SSKD: its losses against loops, its stages, turned pairs that stay pairs, and runs that go on where they were."""
import copy
import math

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from test_engine.test_resume import end_of, killed_and_resumed, same
from tiny import CLASSES, MEAN, SIZE, STD, STUDENT, TEACHER, config, train, write_teacher

from mmcrrcd.datasets import downsample
from mmcrrcd.errors import InputError
from mmcrrcd.models import SSKD, KDLoss, PairPreprocessor, extract
from mmcrrcd.models.algorithms.sskd import kept, rotations, selective_kd, similarities
from mmcrrcd.registry import ALGORITHMS
from mmcrrcd.structures import Batch

N = 6


def settings(**changes) -> dict:
    preprocessor = dict(type='mmcrrcd.PairPreprocessor', mean=MEAN, std=STD, resolution=8, padding=2, flip=0.5)
    return dict(type='mmcrrcd.SSKD', student=STUDENT, teacher=TEACHER, input_size=SIZE, data_preprocessor=preprocessor,
                head_epochs=2) | changes


def build(resolution: int | None = 8, **changes) -> SSKD:
    torch.manual_seed(0)
    changes.setdefault('data_preprocessor', PairPreprocessor(mean=MEAN, std=STD, resolution=resolution))
    model = ALGORITHMS.build(copy.deepcopy(settings(**changes)))
    model.teacher.backbone.stages[0][0].bn1.running_mean.uniform_(-1, 1)
    return model.train()


def batch(model) -> dict:
    """Images of six colors, with noise."""
    colors = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1]])[:, :, None, None]
    noise = torch.randint(0, 128, (N, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(1))
    images = (noise + 127 * colors).to(torch.uint8)
    return model.data_preprocessor(dict(inputs=images, labels=torch.arange(N) % CLASSES, index=torch.arange(N)), training=True)


@pytest.fixture
def epoch():
    """Sets the epoch that the schedules see."""
    hub = MessageHub.get_current_instance()
    yield lambda number: hub.update_info('epoch', number)
    hub.update_info('epoch', 0)


def losses(model, data=None) -> dict:
    return model(**(data or batch(model)), mode='loss')


def slow_kl(student, teacher, answers, temperature, ratio):
    """The published selection and divergence, one row at a time."""
    ranks = []
    for row, answer in zip(teacher, answers):
        order = sorted(range(len(row)), key=lambda c: -row[c])
        ranks.append(order.index(answer))
    wrong = sum(rank > 0 for rank in ranks)
    keep = sorted(range(len(ranks)), key=lambda m: ranks[m])[:len(ranks) - wrong + int(wrong * ratio)]
    total = 0
    for m in keep:
        p, q = ([math.exp(x / temperature) for x in scores[m]] for scores in (teacher, student))
        p, q = ([x / sum(row) for x in row] for row in (p, q))
        total += sum(a * math.log(a / b) for a, b in zip(p, q))
    return temperature**2 * total / len(keep)


def slow_similarities(upright, turned):
    """cosine[m][n] of the m-th turned image with the n-th upright one."""
    return [[(t @ u / t.norm() / u.norm()).item() for u in upright] for t in turned]


@pytest.mark.parametrize('ratio', [0.0, 0.3, 0.75, 1.0])
def test_selective_kd_equals_loops(ratio):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(11, 5, generator=generator).double() for _ in range(2))
    answers = torch.arange(11) % 5
    expected = slow_kl(student.tolist(), teacher.tolist(), answers.tolist(), 2.0, ratio)
    assert selective_kd(student, teacher, answers, 2.0, ratio).item() == pytest.approx(expected, abs=1e-12)


def test_right_answers_are_kept_and_the_best_of_the_wrong_ones():
    scores = torch.tensor([[3., 2, 1], [1, 2, 3], [2, 3, 1], [1, 2, 3], [2, 3, 1]])
    answers = torch.tensor([0, 0, 0, 2, 2])               # ranks 0, 2, 1, 0, 2
    assert kept(scores, answers, 0.0).tolist() == [True, False, False, True, False]
    assert kept(scores, answers, 0.34).tolist() == [True, False, True, True, False]
    assert kept(scores, answers, 0.75).tolist() == [True, True, True, True, False]
    assert kept(scores, answers, 1.0).all()


def test_nothing_kept_is_a_loss_of_zero():
    student = torch.randn(2, 3, requires_grad=True)
    value = selective_kd(student, torch.tensor([[3., 2, 1], [3, 2, 1]]), torch.tensor([1, 2]), 4.0, 0.0)
    assert value == 0 and torch.autograd.grad(value, student)[0].eq(0).all()


def test_gradients_of_the_two_losses():
    generator = torch.Generator().manual_seed(0)
    teacher, answers = torch.randn(6, 4, generator=generator).double(), torch.arange(6) % 4
    student = torch.randn(6, 4, generator=generator).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: selective_kd(s, teacher, answers, 4.0, 0.75), student)
    projected = torch.randn(8, 3, generator=generator).double().requires_grad_()
    assert torch.autograd.gradcheck(similarities, projected)


def test_rotations_are_those_of_the_published_data_set():
    images = torch.randn(2, 3, 4, 4)
    turned = rotations(images).view(4, 2, 3, 4, 4)
    for turn in range(4):
        for i in range(2):
            expected = np.rot90(images[i].permute(1, 2, 0).numpy(), turn)
            np.testing.assert_array_equal(turned[turn, i].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize('size, resolution', [(32, 8), (32, 16), (16, 8)])
def test_turned_pairs_are_pairs(size, resolution):
    """The turned low-resolution image is the low resolution of the turned image, up to the rounding of halves to pixels."""
    high = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    turned, of_turned = rotations(downsample(high, resolution)), downsample(rotations(high), resolution)
    difference = (turned.float() - of_turned.float()).abs()
    assert difference.max() <= 1 and difference.mean() < 0.01


@pytest.mark.parametrize('resolution', [8, None])
def test_both_networks_see_the_same_turns(resolution, epoch):
    model, seen = build(resolution), {}
    for name in ('teacher', 'student'):
        getattr(model, name).backbone.register_forward_pre_hook(lambda _, x, name=name: seen.update({name: x[0]}))
    epoch(2)
    data = batch(model)
    losses(model, data)
    for images, turned in zip(data['inputs'], (seen['teacher'], seen['student'])):
        assert turned.shape == (4 * N, *images.shape[1:])
        for turn in range(4):
            assert torch.equal(turned[turn * N:(turn + 1) * N], images.rot90(turn, (2, 3)))
    assert seen['student'].shape[-1] == (resolution or SIZE)


@pytest.mark.parametrize('ratio', [0.0, 1.0])              # of equal ranks the published code keeps any; these have no choice
def test_the_second_stage_equals_the_published_losses(epoch, ratio):
    weights = dict(cls_weight=0.2, alpha=0.7, transformed=1.5, contrast=3.0)
    model = build(**weights, transformed_ratio=ratio, contrast_ratio=ratio).eval()
    epoch(2)
    data = batch(model)
    values = losses(model, data)
    labels = data['data_samples'].labels.tolist()
    # Image by image, as the published code has them: each upright one, and its three turns after it.
    upright, turned = {}, {}
    with torch.no_grad():
        for name, network, images in zip(('teacher', 'student'), (model.teacher, model.student), data['inputs']):
            upright[name] = extract(network, images)
            turned[name] = extract(network, torch.stack([x.rot90(t, (1, 2)) for x in images for t in (1, 2, 3)]))
    heads = model.of_rotations['contrast']
    logits = {name: [output.logits.tolist() for output in (upright[name], turned[name])] for name in upright}
    scores = {}
    for name, head in (('teacher', heads.teacher_head), ('student', heads.student_head)):
        z, tilde = (head(output.embedding) for output in (upright[name], turned[name]))
        scores[name] = slow_similarities(z, tilde)
    of_three = [i for i in range(N) for _ in range(3)]
    expected = dict(
        loss_cls=0.2 * sum(math.log(sum(map(math.exp, row))) - row[y] for row, y in zip(logits['student'][0], labels)) / N,
        loss_kd=0.7 * slow_kl(logits['student'][0], logits['teacher'][0], labels, 4.0, 1.0),
        loss_transformed=1.5 * slow_kl(logits['student'][1], logits['teacher'][1], [labels[i] for i in of_three], 4.0, ratio),
        loss_contrast=3.0 * slow_kl(scores['student'], scores['teacher'], of_three, 0.5, ratio))
    assert {k: v.item() for k, v in values.items() if k.startswith('loss')} == pytest.approx(expected, rel=1e-4)
    assert values['accuracy'].item() == pytest.approx(100 * np.mean(np.argmax(logits['student'][0], 1) == labels))


def test_the_first_stage_equals_the_published_loss():
    model = build()
    data = batch(model)
    values = losses(model, data)
    assert set(values) == {'loss_head', 'accuracy_head'}
    head, high = model.of_rotations['contrast'].teacher_head, data['inputs'].high
    with torch.no_grad():
        z = head(extract(model.teacher, high).embedding)
        tilde = head(extract(model.teacher, torch.stack([x.rot90(t, (1, 2)) for x in high for t in (1, 2, 3)])).embedding)
    scores = slow_similarities(z, tilde)
    expected = sum(math.log(sum(map(math.exp, row))) - row[m // 3] for m, row in enumerate(scores)) / (3 * N)
    assert values['loss_head'].item() == pytest.approx(expected, abs=1e-5)
    assert values['accuracy_head'].item() == pytest.approx(100 * np.mean(np.argmax(scores, 1) == np.arange(3 * N) // 3))


def test_the_first_stage_trains_the_teachers_head_alone_and_the_second_all_else(epoch):
    model = build()
    model.load_teacher()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    teacher = {name: value.clone() for name, value in model.teacher.state_dict().items()}
    for number in range(4):
        epoch(number)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer.zero_grad()
        sum(v for k, v in losses(model).items() if k.startswith('loss')).backward()
        optimizer.step()
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        of_head = {name for name in before if 'teacher_head' in name}
        assert len(of_head) == 4 and changed == (of_head if number < 2 else set(before) - of_head)
    assert all(torch.equal(value, teacher[name]) for name, value in model.teacher.state_dict().items())
    assert all(p.grad is None for p in model.teacher.parameters())


def test_the_teachers_head_learns_to_tell_images_apart():
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
    shown = []
    for _ in range(40):
        values = losses(model)
        optimizer.zero_grad()
        values['loss_head'].backward()
        optimizer.step()
        shown.append([values[name].item() for name in ('loss_head', 'accuracy_head')])
    assert shown[-1][0] < shown[0][0] - 0.5 and shown[-1][1] > 90


def test_further_losses_see_the_upright_images(epoch):
    model = build(objective=dict(more=dict(type=KDLoss, temperature=4.0), early=dict(type=KDLoss, weight=[(0, 0.5)])))
    model.eval()                                           # the same statistics in both passes
    first = losses(model)
    assert {k for k in first if k.startswith('loss')} == {'loss_head', 'loss_early'}
    epoch(2)
    values = losses(model)
    torch.testing.assert_close(values['loss_kd'], 0.9 * values['loss_more'])
    assert first['loss_early'] == 0.5 * values['loss_more'] > 0


def test_a_weight_that_is_a_schedule_is_taken_as_it_is(epoch):
    model = build(contrast=[(0, 0), (3, 0), (3, 10)], cls_weight=[(0, 0.1)])
    assert {k for k in losses(model) if k.startswith('loss')} == {'loss_head', 'loss_cls'}
    epoch(2)
    assert 'loss_contrast' not in losses(model)
    epoch(3)
    assert losses(model)['loss_contrast'] > 0


def test_defaults_are_those_of_the_published_code():
    model = build(head_epochs=60)
    weights = dict(cls=model.cls_weight, **model.weights)
    assert {name: schedule[-1][1] for name, schedule in weights.items()} == dict(cls=0.1, kd=0.9, transformed=2.7, contrast=10)
    assert all(schedule[:2] == [(0, 0), (60, 0)] for schedule in weights.values())
    transformed, contrast = model.of_rotations['transformed'], model.of_rotations['contrast']
    assert (model.losses['kd'].temperature, transformed.temperature, contrast.temperature) == (4, 4, 0.5)
    assert (transformed.ratio, contrast.ratio) == (1, 0.75)
    heads = [tuple(layer.weight.shape) for head in (contrast.student_head, contrast.teacher_head) for layer in head[::2]]
    assert heads == [(16, 16)] * 2 + [(32, 32)] * 2


def test_losses_stay_in_float32_under_autocast(epoch):
    for number in (0, 2):
        epoch(number)
        with torch.autocast('cpu', torch.bfloat16):
            values = losses(build())
        assert all(value.dtype == torch.float32 and value.isfinite() for value in values.values())


def test_a_preprocessor_without_pairs(epoch):
    """Then both see the same image; and images of low resolution that nobody would use are refused from the start."""
    model = build(data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', mean=MEAN, std=STD))
    samples = Batch(torch.arange(N) % CLASSES, None)
    assert losses(model, dict(inputs=torch.randn(N, 3, SIZE, SIZE), data_samples=samples))['loss_head'] > 0
    epoch(2)
    assert losses(model, dict(inputs=torch.randn(N, 3, SIZE, SIZE), data_samples=samples))['loss_contrast'] > 0


def test_only_training_turns_images():
    model = build().eval()
    data = model.data_preprocessor(dict(inputs=torch.zeros(N, 3, SIZE, SIZE, dtype=torch.uint8), labels=torch.zeros(N),
                                        index=torch.zeros(N)), training=False)
    assert len(model(**data, mode='tensor')) == len(model(**data, mode='predict')[0]['logits']) == N


@pytest.mark.parametrize('wrong, match', [
    (dict(head_epochs=0), 'head_epochs is the length'), (dict(temperature=0), 'temperature'),
    (dict(contrast_temperature=-1), 'contrast_temperature'), (dict(transformed_ratio=1.1), 'transformed_ratio'),
    (dict(contrast_ratio=-0.1), 'contrast_ratio'), (dict(contrast='much'), 'weight of contrast'),
    (dict(teacher=None), 'needs a teacher')])
def test_wrong_settings_are_refused(wrong, match):
    with pytest.raises(InputError, match=match) as error:
        build(**wrong)
    assert '\n' not in str(error.value)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(InputError, match='must be square, got 8 x 4 pixels') as error:
        losses(build(resolution=(8, 4)))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('head_epochs', [1, 3])
def test_a_run_resumes_bit_for_bit(tmp_path, head_epochs):
    """Killed in the third epoch, which is in the second stage, or in the first with the second to come."""
    model = settings(head_epochs=head_epochs, teacher_checkpoint=str(write_teacher(tmp_path / 'teacher.pth')))
    start = {}

    class Remember(Hook):
        def before_train(self, runner):
            start.update({key: value.clone() for key, value in runner.model.state_dict().items()})

    whole = train(config(tmp_path / 'whole', model))
    resumed = killed_and_resumed(config(tmp_path / 'killed', model), Remember())
    assert same(end_of(resumed), end_of(whole))
    after = resumed.model.state_dict()
    for part, moves in (('student.', True), ('contrast.student_head', True), ('contrast.teacher_head', head_epochs == 3)):
        assert {not torch.equal(after[key], start[key]) for key in after if part in key} == {moves}
