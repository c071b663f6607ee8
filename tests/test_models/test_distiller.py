"""The distiller: a frozen teacher that is nobody's parameter, an objective with weights, modes, and clear errors."""
import copy

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead, ResNet_CIFAR
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.models import (
    CRRCD, EKD, SSKD, ABLoss, ATLoss, CRCDLoss, CRDLoss, Distiller, DistillLoss, DKDLoss, EmbeddingNetwork, FTLoss, KDLoss,
    PairPreprocessor, PlainNetwork, RelationContrastLoss, ResNetCIFAR, RKDLoss, VIDLoss, kd_loss,
)
from mmcrrcd.models.algorithms.schedule import value_at
from mmcrrcd.models.networks import extract, use_channels_last
from mmcrrcd.structures import Batch, Pair
from utils import GOLDEN


def classifier(depth: int = 8, classes: int = 5) -> dict:
    return dict(type=ImageClassifier, backbone=dict(type=ResNetCIFAR, depth=depth), neck=dict(type=GlobalAveragePooling),
                head=dict(type=LinearClsHead, num_classes=classes, in_channels=64))


def preprocessor(**settings) -> dict:
    return dict(type=PairPreprocessor, mean=[127.0] * 3, std=[60.0] * 3, **settings)


def fast_batch(n: int = 6, size: int = 32) -> dict:
    generator = torch.Generator().manual_seed(0)
    return dict(inputs=torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator),
                labels=torch.arange(n) % 5, index=torch.arange(n))


def build(algorithm=CRRCD, **settings) -> Distiller:
    torch.manual_seed(0)
    settings = dict(student=classifier(), teacher=classifier(14), data_preprocessor=preprocessor(resolution=8)) | settings
    return algorithm(**settings)


def losses(model, n: int = 6) -> dict:
    return model(**model.data_preprocessor(fast_batch(n), training=True), mode='loss')


def test_the_teacher_is_frozen_and_nobodys_parameter():
    model = build(num_negatives=12).train()
    model.load_teacher()
    before = {name: value.clone() for name, value in model.teacher.state_dict().items()}
    teacher_ids = {id(p) for p in model.teacher.parameters()}
    assert not any('teacher' in key for key in model.state_dict())
    assert not teacher_ids & {id(p) for p in model.parameters()}
    assert not any(m.training for m in model.teacher.modules())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        sum(v for k, v in losses(model).items() if k.startswith('loss')).backward()
        optimizer.step()
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.teacher.state_dict().items())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.student.parameters())


def test_the_teacher_moves_with_the_model():
    model = build().to(torch.float64)
    assert all(p.dtype == torch.float64 for p in model.teacher.parameters())


def test_the_teacher_sees_high_and_the_student_low_resolution():
    model, seen = build(), {}
    for name in ('teacher', 'student'):
        getattr(model, name).backbone.register_forward_pre_hook(
            lambda module, inputs, name=name: seen.update({name: inputs[0].shape[-2:]}))
    losses(model)
    assert seen == dict(teacher=(32, 32), student=(8, 8))
    seen.clear()
    model.eval()
    data = model.data_preprocessor(fast_batch(), training=False)
    assert data['inputs'].high is None
    model(**data, mode='predict')
    assert seen == dict(student=(8, 8))                    # and the teacher is not asked


def test_the_total_is_eq_13():
    """L_cls + alpha L_kd + beta L_rcd, put together by hand from the parts' own functions."""
    model = build(alpha=0.7, beta=0.3, num_negatives=6)
    losses(model)                                          # fills the queue
    queue = {name: value.clone() for name, value in model.losses.rcd.queue.state_dict().items()}
    model.eval()                                           # the same statistics in both passes
    data = model.data_preprocessor(fast_batch(), training=True)
    parts = model(**data, mode='loss')
    model.losses.rcd.queue.load_state_dict(queue)
    pair, batch = data['inputs'], data['data_samples']
    from mmcrrcd.models import extract
    student, teacher = extract(model.student, pair.low), extract(model.teacher, pair.high)
    expected = (F.cross_entropy(student.logits, batch.labels) + 0.7 * kd_loss(student.logits, teacher.logits, 4.0)
                + 0.3 * model.losses.rcd(student, teacher, batch))
    torch.testing.assert_close(sum(v for k, v in parts.items() if k.startswith('loss')), expected)
    assert parts['loss_rcd'] > 0
    assert parts['accuracy'] == 100 * (student.logits.argmax(1) == batch.labels).float().mean()
    assert {'rcd_score_positive', 'rcd_score_negative'} <= set(parts)


@pytest.mark.parametrize('temperature', [1, 4])
def test_kd_equals_the_published_code(temperature):
    data = np.load(GOLDEN / 'reference.npz')
    student, teacher = (torch.from_numpy(data[f'logits_{kind}']) for kind in 's t'.split())
    value = kd_loss(student, teacher, temperature)
    torch.testing.assert_close(value, torch.from_numpy(np.asarray(data[f'out_kd_T{temperature}'])), rtol=0, atol=1e-9)


def test_kd_is_the_cross_entropy_of_eq_12_up_to_the_teachers_entropy():
    torch.manual_seed(0)
    z_s, z_t = torch.randn(4, 7, dtype=torch.float64, requires_grad=True), torch.randn(4, 7, dtype=torch.float64)
    p = (z_t / 4).softmax(1)
    eq_12 = 16 * -(p * (z_s / 4).log_softmax(1)).sum(1).mean()
    entropy = 16 * -(p * p.log()).sum(1).mean()
    torch.testing.assert_close(kd_loss(z_s, z_t, 4), eq_12 - entropy)
    torch.testing.assert_close(*(torch.autograd.grad(x, z_s)[0] for x in (kd_loss(z_s, z_t, 4), eq_12)))


def test_weights_of_zero_leave_the_losses_out():
    assert list(build(alpha=0, beta=1).losses) == ['rcd']
    assert list(build(alpha=0.5, beta=0).losses) == ['kd']


def test_any_loss_of_weight_zero_is_left_out():
    model = build(Distiller, objective=dict(kd=dict(type=KDLoss, weight=0), more=dict(type=KDLoss, weight=[(0, 0), (9, 1)])))
    assert list(model.losses) == ['more']


def test_a_schedule_weighs_by_the_epoch():
    schedule = [(0, 0), (20, 1), (30, 1), (30, 0)]
    assert [value_at(schedule, epoch) for epoch in (0, 5, 20, 29.9, 30, 99)] == [0, 0.25, 1, 1, 0, 0]
    model = build(alpha=[(0, 0), (2, 1)], beta=0)
    hub = MessageHub.get_current_instance()
    try:
        hub.update_info('epoch', 1)
        half = losses(model)['loss_kd']
        hub.update_info('epoch', 2)
        whole = losses(model)['loss_kd']
    finally:
        hub.update_info('epoch', 0)
    torch.testing.assert_close(whole, 2 * half, rtol=1e-3, atol=1e-4)


def test_what_a_loss_of_weight_zero_trains_is_not_touched():
    model = build(alpha=0, beta=[(0, 1), (5, 1), (5, 0)], cls_weight=[(0, 0), (5, 0), (5, 1)], num_negatives=6).train()
    hub = MessageHub.get_current_instance()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    try:
        for epoch, computed in ((0, {'loss_rcd'}), (5, {'loss_cls'})):
            hub.update_info('epoch', epoch)
            losses(model)                                # fills the queue
            before = {name: p.clone() for name, p in model.named_parameters()}
            parts = {name: value for name, value in losses(model).items() if name.startswith('loss')}
            assert parts.keys() == computed
            optimizer.zero_grad()
            sum(parts.values()).backward()
            optimizer.step()
            moved = {name.split('.')[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
            assert ('losses' in moved) == (epoch == 0)
            assert not torch.equal(model.student.backbone.stem[0].weight, before['student.backbone.stem.0.weight'])
            assert torch.equal(model.student.head.fc.weight, before['student.head.fc.weight']) == (epoch == 0)
    finally:
        hub.update_info('epoch', 0)


def test_any_two_losses_together_with_the_method():
    model = build(objective=dict(more=dict(type=KDLoss, weight=2.0, temperature=1.0)))
    assert {'loss_cls', 'loss_kd', 'loss_rcd', 'loss_more'} <= set(losses(model))


@pytest.mark.parametrize('both', [
    dict(ft=dict(type=FTLoss, weight=200, paraphraser_epochs=0), crd=dict(type=CRDLoss, num_samples=24, num_negatives=8)),
    dict(ab=dict(type=ABLoss), at=dict(type=ATLoss, weight=1000)),     # feature maps before and after activation
    dict(vid=dict(type=VIDLoss), rkd=dict(type=RKDLoss)),
    dict(dkd=dict(type=DKDLoss), crcd=dict(type=CRCDLoss, num_samples=24, num_negatives=8))], ids='-'.join)
def test_any_two_methods_together(both):
    """Both train the student, and the first has the value that it has alone."""
    together = build(Distiller, objective=both).train()
    parts = losses(together)
    assert {name for name in parts if name.startswith('loss')} == {'loss_cls', *(f'loss_{name}' for name in both)}
    for name in both:
        gradient, = torch.autograd.grad(parts[f'loss_{name}'], together.student.backbone.stem[0].weight, retain_graph=True)
        assert gradient.any() and gradient.isfinite().all()
    name = next(iter(both))                              # the first made: the same weights for the same seed
    torch.testing.assert_close(losses(build(Distiller, objective={name: both[name]}).train())[f'loss_{name}'],
                               parts[f'loss_{name}'])


def test_a_student_that_is_no_classifier_is_refused():
    with pytest.raises(InputError, match='the student is an ImageClassifier'):
        build(student=nn.Linear(3, 5))


def test_initializing_twice_keeps_the_teacher(tmp_path):
    torch.save(build().teacher.state_dict(), tmp_path / 'teacher.pth')
    model = build(teacher_checkpoint=str(tmp_path / 'teacher.pth'))
    model.load_teacher()
    folded = model.teacher
    model.load_teacher()
    assert model.teacher is folded


def test_a_queue_of_another_length_is_refused():
    model, other = build(num_negatives=12), build(num_negatives=24)
    with pytest.raises(InputError, match="the checkpoint's queue is"):
        other.load_state_dict(model.state_dict())


def test_unsupervised_needs_to_know_the_images():
    model = build(sampling='unsupervised')
    data = model.data_preprocessor(fast_batch(), training=True)
    with pytest.raises(InputError, match='sample_idx'):
        model(data['inputs'], data['data_samples']._replace(index=None), mode='loss')


def test_modes():
    model = build().eval()
    data = model.data_preprocessor(fast_batch(), training=False)
    logits = model(**data, mode='tensor')
    assert logits.shape == (6, 5)
    answer, = model(**data, mode='predict')
    assert torch.equal(answer['logits'], logits) and torch.equal(answer['labels'], fast_batch()['labels'])
    with pytest.raises(ValueError, match='mode is'):
        model(**data, mode='train')


def test_without_a_teacher_it_is_supervised_training():
    model = build(Distiller, teacher=None)
    parts = losses(model)
    assert [key for key in parts if key.startswith('loss')] == ['loss_cls']


def test_a_plain_module_as_teacher():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 7, 3, 4), nn.Linear(7, 5)

        def forward(self, x):
            return self.fc(self.conv(x).mean((2, 3)))

    model = build(teacher=PlainNetwork(Net(), classifier='fc'), num_negatives=6)
    model.load_teacher()
    losses(model)
    assert losses(model)['loss_rcd'] > 0
    assert model.losses.rcd.student_map.out_features == 7


def test_networks_of_mmpretrain():
    piped = dict(type=ImageClassifier, backbone=dict(type=ResNet_CIFAR, depth=18, base_channels=8, stem_channels=8),
                 neck=dict(type=GlobalAveragePooling), head=dict(type=LinearClsHead, num_classes=5, in_channels=64))
    assert losses(build(teacher=piped))['loss_kd'] > 0


def test_teacher_and_student_of_different_classes_are_refused():
    with pytest.raises(InputError, match='the teacher knows 7 classes, the student 5'):
        build(teacher=classifier(classes=7))


def test_an_image_too_small_for_a_network_is_refused():
    tall = nn.Sequential(nn.Conv2d(3, 4, 48), nn.Flatten(), nn.Linear(4, 5))
    with pytest.raises(InputError, match='the teacher cannot take images of 32 x 32 pixels') as error:
        build(teacher=PlainNetwork(tall, classifier='2'))
    assert '\n' not in str(error.value)


def test_an_objective_without_a_teacher_is_refused():
    with pytest.raises(InputError, match='needs a teacher'):
        build(Distiller, teacher=None, objective=dict(kd=dict(type=KDLoss)))


@pytest.mark.parametrize('weight', ['much', [(3, 1), (1, 1)], [], [(1, 2, 3)], True, [0, 1], [(0, 'a')], float('nan'),
                                    [(0, float('inf'))]])
def test_weights_that_cannot_be_read_are_refused(weight):
    with pytest.raises(InputError, match='weight of kd'):
        build(Distiller, objective=dict(kd=dict(type=KDLoss, weight=weight)))


def test_a_checkpoint_of_another_architecture_is_named(tmp_path):
    torch.save(build(teacher=classifier(8)).teacher.state_dict(), tmp_path / 'r8.pth')
    model = build(teacher_checkpoint=str(tmp_path / 'r8.pth'))
    with pytest.raises(InputError, match='not a checkpoint of this teacher: no backbone'):
        model.load_teacher()


def test_losses_stay_in_float32_under_autocast():
    model = build(num_negatives=6)
    with torch.autocast('cpu', torch.bfloat16):
        parts = losses(model)
    assert all(value.dtype == torch.float32 for value in parts.values())


def test_the_batch_of_the_mmpretrain_pipeline():
    samples = [DataSample().set_gt_label(i) for i in (3, 1)]
    batch = Batch.of(samples)
    assert batch.labels.tolist() == [3, 1]
    assert Batch.of(batch) is batch
    assert Pair(None, torch.zeros(1)).high is None


def test_a_low_image_that_nobody_would_use_is_refused():
    sample = DataSample().set_gt_label(1)
    sample.img_low = torch.zeros(3, 8, 8)
    with pytest.raises(InputError, match='PairPreprocessor'):
        build()(torch.zeros(1, 3, 32, 32), [sample], mode='loss')


def test_registered_under_the_names_that_users_look_for():
    from mmcrrcd.registry import ALGORITHMS, DATASETS, HOOKS, LOSSES, METRICS, MODELS, TRANSFORMS
    assert ALGORITHMS.get('CRRCD') is CRRCD and LOSSES.get('RelationContrastLoss') is RelationContrastLoss
    for registry, name in ((TRANSFORMS, 'ResolutionPair'),
                           (DATASETS, 'CIFAR100Arrays'), (HOOKS, 'FiniteHook'), (METRICS, 'BatchAccuracy'),
                           (MODELS, 'ResNetCIFAR')):
        assert registry.get(name) is not None and registry.get(f'mmcrrcd.{name}') is registry.get(name)


class Shows(DistillLoss):
    """Puts one number into the log, says which epoch it hears, and needs what it is told."""

    def __init__(self, key: str = 'score', needs=('embedding', )):
        super().__init__()
        self.key, self.needs = key, frozenset(needs)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def forward(self, student, teacher, batch):
        self.log_vars = {self.key: torch.tensor(1000.0 + self.epoch)}
        return student.logits.square().mean()


@pytest.mark.parametrize('algorithm, names', [
    (Distiller, ('cls', )), (CRRCD, ('cls', 'kd', 'rcd')), (EKD, ('cls', 'teacher', 'guided')),
    (SSKD, ('cls', 'head', 'kd', 'transformed', 'contrast'))])
def test_names_of_the_algorithms_own_parts_are_refused(algorithm, names):
    for name in names:
        said = rf"^objective: '{name}' is the name of a part of {algorithm.__name__} itself [^\n]*$"
        with pytest.raises(InputError, match=said):
            build(algorithm, objective={name: dict(type=Shows)})


@pytest.mark.parametrize('name', ['my_loss', 'a.b', 'a b', '', 'keys', 3])
def test_names_that_the_log_cannot_show_are_refused(name):
    with pytest.raises(InputError, match=r'^objective: [^\n]* cannot be the name of a loss, [^\n]*$'):
        build(Distiller, objective={name: dict(type=Shows)})


def test_what_two_losses_show_is_kept_apart_and_not_in_the_total():
    hub = MessageHub.get_current_instance()
    hub.update_info('epoch', 3)
    try:
        objective = dict(a=dict(type=Shows), b=dict(type=Shows, key='other'), c=dict(type=Shows))
        parts = losses(build(Distiller, objective=objective))
    finally:
        hub.update_info('epoch', 0)
    assert parts['a_score'] == parts['c_score'] == parts['b_other'] == 1003
    total, _ = build().parse_losses(parts)
    torch.testing.assert_close(total, sum(parts[f'loss_{name}'] for name in ('cls', 'a', 'b', 'c')))


def test_a_log_var_that_would_be_summed_is_refused():
    with pytest.raises(InputError, match=r"^a: no key of log_vars contains 'loss', got 'inner_loss'$"):
        losses(build(Distiller, objective=dict(a=dict(type=Shows, key='inner_loss'))))


def test_a_loss_that_keeps_not_to_the_contract_is_refused():
    with pytest.raises(InputError, match='^a is a MSELoss; the losses of an objective derive from DistillLoss'):
        build(Distiller, objective=dict(a=dict(type=nn.MSELoss)))


@pytest.mark.parametrize('need, message', [
    ('feature_maps', "a needs the teacher's feature maps, and this teacher gives none"),
    ('pre_activations', "a needs the teacher's pre-activations, and this teacher gives none"),
    ('logits', 'a compares logits, and the teacher ends in its embedding'), ('maps', "a needs 'maps', which is no part of an")])
def test_a_teacher_that_lacks_what_a_loss_needs_is_refused(need, message):
    teacher = EmbeddingNetwork(nn.Sequential(nn.Conv2d(3, 4, 32), nn.Flatten()))
    with pytest.raises(InputError, match=f'^{message}[^\n]*$'):
        build(Distiller, teacher=teacher, objective=dict(a=dict(type=Shows, needs=(need, ))))


def test_pre_activations_are_computed_where_a_loss_needs_them():
    model = build(Distiller, objective=dict(a=dict(type=Shows, needs=('pre_activations', ))))
    assert model.teacher.backbone.gives_pre_activations and model.student.backbone.gives_pre_activations


def test_a_narrow_convolution_keeps_the_usual_memory_format():
    """In channels-last memory its gradient crashes torch on some CPUs."""
    narrow, wide = nn.Conv2d(8, 16, 1, 2, bias=False), nn.Conv2d(16, 16, 1, 2, bias=False)
    for layer, stays in ((narrow, False), (wide, True), (nn.Conv2d(8, 16, 3, 2), True), (nn.Conv2d(8, 16, 1), True)):
        use_channels_last(nn.Sequential(layer))
        images = torch.randn(2, layer.in_channels, 6, 6).to(memory_format=torch.channels_last)
        assert layer(images).is_contiguous(memory_format=torch.channels_last) == stays
    use_channels_last(nn.Sequential(narrow))             # twice is once
    assert len(narrow._forward_pre_hooks) == 1
    copied = copy.deepcopy(narrow)
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(copied(x.to(memory_format=torch.channels_last)), F.conv2d(x, narrow.weight, stride=2))


def test_a_network_that_reads_maps_in_their_order_is_set_to_it():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            return (self.conv(x).view(len(x), -1), )

    classifier = ImageClassifier(backbone=Reads(), head=dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=64))
    x = torch.randn(2, 3, 4, 4)
    wanted = classifier(x)
    use_channels_last(classifier)
    for images in (x.to(memory_format=torch.channels_last), x):
        torch.testing.assert_close(extract(classifier, images).logits, wanted)

    class Wrong(nn.Module):
        def forward(self, x):
            raise RuntimeError('view size is not compatible, always')

    classifier.backbone = Wrong()
    with pytest.raises(RuntimeError, match='always'):
        extract(classifier, x)


def test_several_labels_for_an_image_are_refused():
    samples = [DataSample().set_gt_label([0, 2]), DataSample().set_gt_label([1])]
    with pytest.raises(InputError, match='2 images have labels .* expected one class for each image'):
        Batch.of(samples)
