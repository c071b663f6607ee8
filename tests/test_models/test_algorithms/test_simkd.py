"""SimKD: the error against loops, a classifier that is the teacher's and frozen, and a student that leaves as a plain one."""
import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import get_state_dict
from test_engine.test_resume import end_of, killed_and_resumed, same
from tiny import CLASSES, MEAN, SIZE, STD, STUDENT, TEACHER, config, train, write_teacher
from utils import tool
from torch import nn

from mmcrrcd.checkpoint import find_checkpoint, read_network
from mmcrrcd.errors import InputError
from mmcrrcd.models import EmbeddingNetwork, KDLoss, PairPreprocessor, PlainNetwork, SimKD, extract
from mmcrrcd.models.networks import linear_classifier
from mmcrrcd.registry import ALGORITHMS, MODELS

N = 8


def settings(**changes) -> dict:
    preprocessor = dict(type='mmcrrcd.PairPreprocessor', mean=MEAN, std=STD, resolution=8, padding=2, flip=0.5)
    networks = dict(student=STUDENT, teacher=TEACHER)
    return dict(type='mmcrrcd.SimKD', **networks, input_size=SIZE, data_preprocessor=preprocessor) | changes


def build(**changes) -> SimKD:
    torch.manual_seed(0)
    changes['data_preprocessor'] = PairPreprocessor(mean=MEAN, std=STD, resolution=8)
    model = ALGORITHMS.build(copy.deepcopy(settings(**changes)))
    model.init_weights()
    return model.train()


def batch(model) -> dict:
    images = torch.randint(0, 256, (N, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return model.data_preprocessor(dict(inputs=images, labels=torch.arange(N) % CLASSES, index=torch.arange(N)), training=True)


def steps(model, number: int = 3) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1, weight_decay=0.1)
    for _ in range(number):
        optimizer.zero_grad()
        values = model(**batch(model), mode='loss')
        sum(value for name, value in values.items() if name.startswith('loss')).backward()
        optimizer.step()


def classifier_of(teacher) -> tuple[torch.Tensor, torch.Tensor]:
    return teacher.head.fc.weight, teacher.head.fc.bias


class Net(nn.Module):
    """A plain network of four classes."""

    def __init__(self, bias: bool = True, last: nn.Module | None = None):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 7, 3, 4), last or nn.Linear(7, CLASSES, bias=bias)

    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3)))


def test_the_loss_is_the_mean_squared_error_of_the_mapped_embedding():
    model = build(beta=3.0).eval()
    data = batch(model)
    student, teacher = extract(model.student, data['inputs'].low), extract(model.teacher, data['inputs'].high)
    layer = model.losses['simkd'].map
    errors = []
    for e_s, e_t in zip(student.embedding, teacher.embedding):
        for row, bias, target in zip(layer.weight, layer.bias, e_t):
            errors.append((sum(w * e for w, e in zip(row, e_s)) + bias - target)**2)
    values = model(**data, mode='loss')
    assert [name for name in values if name.startswith('loss')] == ['loss_simkd'] and len(errors) == N * 32
    torch.testing.assert_close(values['loss_simkd'], 3 * sum(errors) / len(errors), rtol=1e-4, atol=0)


def test_the_teachers_classifier_answers_for_the_student():
    model = build()
    steps(model)
    model.eval()
    data = batch(model)
    weight, bias = classifier_of(model.teacher)
    mapped = model.losses['simkd'].map(extract(model.student, data['inputs'].low).embedding)
    expected = mapped @ weight.T + bias
    torch.testing.assert_close(model(**data, mode='tensor'), expected)
    torch.testing.assert_close(model(**data, mode='predict')[0]['logits'], expected)
    torch.testing.assert_close(extract(model.student, data['inputs'].low).logits, expected)         # a plain classifier
    right = 100 * (expected.argmax(1) == data['data_samples'].labels).float().mean()
    assert model(**data, mode='loss')['accuracy'] == right


def test_the_head_is_exact_under_autocast():
    model = build().eval()
    with torch.autocast('cpu', torch.bfloat16):
        model(**batch(model), mode='predict')
    weight, bias = classifier_of(model.teacher)
    layer = model.losses['simkd'].map
    torch.testing.assert_close(model.student.head.fc.weight, weight @ layer.weight)
    torch.testing.assert_close(model.student.head.fc.bias, weight @ layer.bias + bias)


@pytest.mark.parametrize('state_dict', [nn.Module.state_dict, get_state_dict], ids=['torch', 'mmengine'])
def test_what_is_saved_right_after_a_step_has_the_head(state_dict):
    model = build()
    steps(model)
    saved = copy.deepcopy(state_dict(model))
    weight, bias = classifier_of(model.teacher)
    torch.testing.assert_close(saved['student.head.fc.weight'], weight @ saved['losses.simkd.map.weight'])
    torch.testing.assert_close(saved['student.head.fc.bias'], weight @ saved['losses.simkd.map.bias'] + bias)
    assert torch.equal(saved['classifier_weight'], weight) and torch.equal(saved['classifier_bias'], bias)
    assert not any(key.startswith('teacher') for key in saved)


def test_the_error_alone_trains_backbone_and_map_and_nothing_the_classifier():
    model = build()
    before = {name: value.clone() for name, value in model.named_parameters()}
    kept = [value.clone() for value in classifier_of(model.teacher)]
    steps(model, 1)
    still = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert still == {'student.head.fc.weight', 'student.head.fc.bias'}       # weight decay included; set when it is asked
    assert all(map(torch.equal, kept, classifier_of(model.teacher)))
    assert all(map(torch.equal, kept, (model.classifier_weight, model.classifier_bias)))


def test_losses_beside_it_train_backbone_and_map_through_the_frozen_classifier():
    model = build(cls_weight=0.5, objective=dict(kd=dict(type=KDLoss, weight=2.0)))
    values = model(**batch(model), mode='loss')
    for name in ('loss_cls', 'loss_kd'):
        learning = [model.student.backbone.stem[0].weight, model.losses['simkd'].map.weight]
        assert all(g.any() for g in torch.autograd.grad(values[name], learning, retain_graph=True))


def test_losses_stay_in_float32_under_autocast():
    model = build()
    with torch.autocast('cpu', torch.bfloat16):
        value = model(**batch(model), mode='loss')['loss_simkd']
    value.backward()
    assert value.dtype == torch.float32 and model.student.backbone.stem[0].weight.grad.isfinite().all()


def test_a_batch_of_one_image():
    model = build().eval()                               # a student's own batch norm may refuse it in training
    data = model.data_preprocessor(dict(inputs=torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8), labels=torch.zeros(1).long(),
                                        index=torch.zeros(1).long()), training=True)
    assert model(**data, mode='loss')['loss_simkd'].isfinite()


@pytest.mark.parametrize('bias', [True, False])
def test_a_plain_network_as_teacher(bias):
    net = Net(bias)
    model = build(teacher=PlainNetwork(net))
    assert torch.equal(model.classifier_weight, net.fc.weight)
    assert torch.equal(model.classifier_bias, net.fc.bias if bias else torch.zeros(CLASSES))


def test_stored_answers_tell_their_classifier():
    class Answers(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.said, self.pair = extract(network, torch.zeros(2, 3, SIZE, SIZE)), linear_classifier(network)

        def extract(self, images):
            return self.said

        def teacher_classifier(self):
            return self.pair

    network = MODELS.build(TEACHER).eval().requires_grad_(False)
    model = build(teacher=Answers(network))
    assert torch.equal(model.classifier_weight, network.head.fc.weight)


def test_the_classifier_is_that_of_the_teachers_checkpoint(tmp_path):
    file = write_teacher(tmp_path / 'teacher.pth')
    model = build(teacher_checkpoint=str(file))
    weights = torch.load(file, weights_only=True)
    assert torch.equal(model.classifier_weight, weights['head.fc.weight'])
    assert torch.equal(model.classifier_bias, weights['head.fc.bias'])


def test_it_moves_with_the_model():
    model = build().double()
    assert model.classifier_weight.dtype == torch.float64
    model.set_head()


def test_a_run_resumes_bit_for_bit_and_its_student_is_a_plain_classifier(tmp_path):
    model = settings(teacher_checkpoint=str(write_teacher(tmp_path / 'teacher.pth')))
    whole = train(config(tmp_path / 'whole', copy.deepcopy(model)))
    resumed = killed_and_resumed(config(tmp_path / 'killed', copy.deepcopy(model)))
    assert same(end_of(resumed), end_of(whole))

    folder = tmp_path / 'killed'
    weights, distiller = read_network(folder), resumed.model
    product = distiller.classifier_weight @ distiller.losses['simkd'].map.weight
    torch.testing.assert_close(weights['head.fc.weight'], product.detach())
    resumed.cfg.dump(tmp_path / 'config.py')
    tool('export_student.py', find_checkpoint(folder), '--config', tmp_path / 'config.py')
    student = MODELS.build(Config.fromfile(folder / 'student' / 'student.py').model)
    student.load_state_dict(torch.load(folder / 'student' / 'student.pth', weights_only=True)['state_dict'])
    data = batch(distiller.eval())
    torch.testing.assert_close(student.eval()(data['inputs'].low, mode='tensor'), distiller(**data, mode='tensor'))


cosine = dict(type='mmcrrcd.CosineHead', num_classes=CLASSES, in_channels=32)
another_head = TEACHER | dict(head=cosine)
another_student = STUDENT | dict(head=cosine | dict(in_channels=16))


@pytest.mark.parametrize('wrong, match', [
    (dict(teacher=another_head), r'the teacher \(ImageClassifier\) ends in none'),
    (dict(teacher=PlainNetwork(Net(last=nn.Sequential(nn.Linear(7, CLASSES))), 'fc')),
     r'the teacher \(PlainNetwork\) ends in none'),
    (dict(teacher=PlainNetwork(Net(last=nn.Sequential(nn.Linear(7, 6), nn.Linear(6, CLASSES))), 'fc.0')),
     r"the teacher's classifier is a linear layer of \(6, 7\), and \(4, 7\) lead"),
    (dict(teacher=EmbeddingNetwork(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 5)))),
     r'\(EmbeddingNetwork\) ends in'),
    (dict(student=another_student), 'a LinearClsHead, and it has a CosineHead'),
    (dict(objective=dict(simkd=dict(type=KDLoss))), "'simkd' is the name of a part of SimKD"),
    (dict(teacher=None), 'needs a teacher'), (dict(beta=0), 'it cannot be 0'), (dict(beta='much'), 'weight of simkd')])
def test_what_cannot_work_is_refused_in_one_line(wrong, match):
    with pytest.raises(InputError, match=match) as error:
        build(**wrong)
    assert '\n' not in str(error.value)
