"""EKD: the guided modules against loops, a teacher that learns by itself, and a student that leaves without it."""
import copy

import pytest
import torch
from mmengine.hooks import Hook
from test_engine.test_resume import end_of, killed_and_resumed, same
from tiny import CLASSES, MEAN, SIZE, STD, STUDENT, TEACHER, config, train
from utils import tool
from torch import nn
from torch.nn import functional as F

from mmcrrcd.checkpoint import find_checkpoint, load_network, read_network
from mmcrrcd.errors import InputError
from mmcrrcd.models import EKD, KDLoss, PairPreprocessor, PlainNetwork, extract
from mmcrrcd.models.algorithms.ekd import GuidedLoss
from mmcrrcd.registry import ALGORITHMS, MODELS
from mmcrrcd.structures import Batch, NetworkOutput

N = 8


def settings(**changes) -> dict:
    preprocessor = dict(type='mmcrrcd.PairPreprocessor', mean=MEAN, std=STD, resolution=8, padding=2, flip=0.5)
    return dict(type='mmcrrcd.EKD', student=STUDENT, teacher=TEACHER, input_size=SIZE, data_preprocessor=preprocessor) | changes


def build(resolution: int | None = 8, **changes) -> EKD:
    torch.manual_seed(0)
    changes['data_preprocessor'] = PairPreprocessor(mean=MEAN, std=STD, resolution=resolution)
    model = ALGORITHMS.build(copy.deepcopy(settings(**changes)))
    model.init_weights()
    return model.train()


def batch(model) -> dict:
    images = torch.randint(0, 256, (N, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return model.data_preprocessor(dict(inputs=images, labels=torch.arange(N) % CLASSES, index=torch.arange(N)), training=True)


def total(values: dict) -> torch.Tensor:
    return sum(value for name, value in values.items() if name.startswith('loss'))


def test_the_guided_loss_equals_loops():
    generator = torch.Generator().manual_seed(0)

    def output(channels, size):
        maps = tuple(torch.randn(3, c, s, s, generator=generator).double() for c, s in zip(channels, (size, size, size // 2)))
        return NetworkOutput(maps, torch.zeros(3, 2), torch.zeros(3, 2), (size, size))

    student, teacher = output((2, 3, 4), 4), output((2, 5, 6), 8)
    loss = GuidedLoss()
    loss.build(student, teacher)
    loss.double()
    expected = 0
    for stage, (convolution, norm) in enumerate(loss.guided, 1):
        norm.weight.data.uniform_(0.5, 2)
        norm.bias.data.normal_()
        ours, theirs = student.feature_maps[stage], teacher.feature_maps[stage]
        size = ours.shape[2]
        squares = []
        for c in range(theirs.shape[1]):
            mixed = sum(convolution.weight[c, d, 0, 0] * ours[:, d] for d in range(ours.shape[1]))
            normed = (mixed - mixed.mean()) / (mixed.var(unbiased=False) + norm.eps).sqrt() * norm.weight[c] + norm.bias[c]
            for y in range(size):
                for x in range(size):
                    window = theirs[:, c, 2 * y:2 * y + 2, 2 * x:2 * x + 2].mean((1, 2))
                    squares.append((normed[:, y, x] - window)**2)
        expected = expected + torch.stack(squares).mean()
    assert len(loss.guided) == 2
    torch.testing.assert_close(loss(student, teacher, Batch(torch.zeros(3), None)), expected, rtol=1e-12, atol=1e-12)
    maps = tuple(m.requires_grad_() for m in student.feature_maps[1:])
    stem = student.feature_maps[0]
    assert torch.autograd.gradcheck(lambda *m: loss(student._replace(feature_maps=(stem, *m)), teacher, None), maps)


def test_the_total_is_both_classifications_and_the_guided_loss():
    model = build(beta=0.3, objective=dict(kd=dict(type=KDLoss, weight=0.7)))
    model.eval()                                           # the same statistics in both passes
    data = batch(model)
    values = model(**data, mode='loss')
    student, teacher = extract(model.student, data['inputs'].low), extract(model.teacher, data['inputs'].high)
    labels = data['data_samples'].labels
    torch.testing.assert_close(values['loss_cls'], F.cross_entropy(student.logits, labels))
    torch.testing.assert_close(values['loss_teacher'], F.cross_entropy(teacher.logits, labels))
    torch.testing.assert_close(values['loss_guided'], 0.3 * model.losses['guided'](student, teacher, data['data_samples']))
    torch.testing.assert_close(values['loss_kd'], 0.7 * KDLoss()(student, teacher, data['data_samples']))
    assert values['accuracy_teacher'] == 100 * (teacher.logits.argmax(1) == labels).float().mean()
    assert {k for k in values if k.startswith('loss')} == {'loss_cls', 'loss_teacher', 'loss_guided', 'loss_kd'}


def test_the_teacher_learns_from_its_own_classification_alone():
    model = build(objective=dict(kd=dict(type=KDLoss, weight=1.0)))
    names = dict(model.named_parameters())
    teacher = {name: p for name, p in names.items() if name.startswith('teacher.')}
    assert len(teacher) == len(list(model.teacher.parameters())) and all(p.requires_grad for p in teacher.values())
    values = model(**batch(model), mode='loss')
    own = torch.autograd.grad(values['loss_teacher'], list(teacher.values()), retain_graph=True)
    total(values).backward()
    for p, expected in zip(teacher.values(), own, strict=True):
        torch.testing.assert_close(p.grad, expected)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in names.values())


def test_what_of_the_teacher_is_frozen_stays_so():
    teacher = MODELS.build(TEACHER)
    teacher.backbone.stem.requires_grad_(False)
    model = build(teacher=teacher)
    assert {name.split('.')[1] for name, p in model.teacher.named_parameters() if not p.requires_grad} == {'stem'}
    total(model(**batch(model), mode='loss')).backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.teacher.parameters())


def test_the_teacher_is_neither_frozen_nor_folded():
    model = ALGORITHMS.build(copy.deepcopy(settings()))
    assert all(m.training for m in model.teacher.modules())
    model.eval().init_weights()
    assert 'teacher' not in vars(model) and model.teacher is dict(model.named_children())['teacher']
    assert isinstance(model.teacher.backbone.stem[1], nn.BatchNorm2d)


@pytest.mark.parametrize('resolution', [8, None])
def test_a_step_moves_teacher_student_and_guided_modules(resolution):
    model = build(resolution)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    total(model(**batch(model), mode='loss')).backward()
    optimizer.step()
    still = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert not still and {name.split('.')[0] for name in before} == {'student', 'teacher', 'losses'}
    assert [tuple(m[0].weight.shape[:2]) for m in model.losses['guided'].guided] == [(16, 8), (24, 16), (32, 16)]


def test_the_teachers_statistics_follow_the_mode():
    model = build()
    norm = model.teacher.backbone.stem[1]
    model(**batch(model), mode='loss')
    moved = norm.running_mean.clone()
    assert moved.abs().max() > 0
    model.eval()
    model(**batch(model), mode='loss')
    assert torch.equal(norm.running_mean, moved)


def test_evaluation_asks_the_student_alone():
    model, seen = build().eval(), []
    model.teacher.register_forward_pre_hook(lambda *_: seen.append('teacher'))
    model.teacher.backbone.register_forward_pre_hook(lambda *_: seen.append('teacher'))
    data = model.data_preprocessor(dict(inputs=torch.zeros(N, 3, SIZE, SIZE, dtype=torch.uint8), labels=torch.zeros(N),
                                        index=torch.zeros(N)), training=False)
    assert len(model(**data, mode='tensor')) == len(model(**data, mode='predict')[0]['logits']) == N and not seen


def test_losses_stay_in_float32_under_autocast():
    model = build()
    with torch.autocast('cpu', torch.bfloat16):
        values = model(**batch(model), mode='loss')
    assert all(value.dtype == torch.float32 and value.isfinite() for value in values.values())
    total(values).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_teacher_moves_with_the_model():
    assert all(p.dtype == torch.float64 for p in build().double().teacher.parameters())


def test_a_run_resumes_bit_for_bit_and_the_student_leaves_alone(tmp_path):
    start = {}

    class Remember(Hook):
        def before_train(self, runner):
            start.update({key: value.clone() for key, value in runner.model.state_dict().items()})

    whole = train(config(tmp_path / 'whole', settings()))
    resumed = killed_and_resumed(config(tmp_path / 'killed', settings()), Remember())
    assert same(end_of(resumed), end_of(whole))
    after = resumed.model.state_dict()
    assert not any(torch.equal(after[key], start[key]) for key in after)

    folder = tmp_path / 'killed'
    weights = read_network(folder)
    assert same(weights, resumed.model.student.state_dict()) and not any('teacher' in key for key in weights)
    load_network(MODELS.build(STUDENT), folder, 'student')
    resumed.cfg.dump(tmp_path / 'config.py')
    tool('export_student.py', find_checkpoint(folder), '--config', tmp_path / 'config.py')
    exported = torch.load(folder / 'student' / 'student.pth', weights_only=True)['state_dict']
    assert same(exported, dict(resumed.model.student.state_dict()))


@pytest.mark.parametrize('wrong, match', [
    (dict(teacher_checkpoint='teacher.pth'), 'leave teacher_checkpoint out'), (dict(teacher=None), 'needs a teacher'),
    (dict(beta='much'), 'weight of guided')])
def test_wrong_settings_are_refused(wrong, match):
    with pytest.raises(InputError, match=match) as error:
        build(**wrong)
    assert '\n' not in str(error.value)


def test_a_teacher_without_maps_or_without_a_head_is_refused():
    flat = PlainNetwork(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, CLASSES)), classifier='1')
    with pytest.raises(InputError, match='this teacher gives none') as error:
        build(teacher=flat)
    assert '\n' not in str(error.value)

    class Headless(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = MODELS.build(TEACHER)

        def extract(self, images):
            return extract(self.network, images)

    with pytest.raises(InputError, match='the teacher of EKD is an ImageClassifier of mmpretrain, got a Headless'):
        build(teacher=Headless())
