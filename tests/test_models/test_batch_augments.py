"""Mixup and CutMix: once, for both images of the pair and the labels; or refused in one line."""
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.models import RandomBatchAugment
from mmpretrain.structures import DataSample
from tiny import CLASSES, MEAN, SIZE, STD, TEACHER, network
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.models import CRRCD, Distiller, PairPreprocessor, kd_loss
from mmcrrcd.models.classification import soft_labels

MIX = dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)])
IMAGES = torch.randint(0, 256, (8, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % CLASSES
FORMS = dict(
    in_memory=dict(inputs=IMAGES, labels=LABELS, index=torch.arange(8)),
    stacked=dict(inputs=IMAGES, data_samples=[DataSample(metainfo=dict(sample_idx=i)).set_gt_label(label)
                                              for i, label in enumerate(LABELS)]),
    listed=dict(inputs=list(IMAGES), data_samples=[DataSample(metainfo=dict(sample_idx=i)).set_gt_label(label)
                                                   for i, label in enumerate(LABELS)]))


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def seed():
    torch.manual_seed(3)
    np.random.seed(3)


def settings(**changes) -> dict:
    return dict(type='mmcrrcd.PairPreprocessor', mean=MEAN, std=STD, resolution=8, **changes)


def distiller(kind=Distiller, preprocessor=None, student=None, **changes):
    torch.manual_seed(0)
    return kind(student or network(), TEACHER, input_size=SIZE, data_preprocessor=preprocessor or settings(batch_augments=MIX),
                **changes)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('kind', ['Mixup', 'CutMix'])
def test_teacher_student_and_labels_see_one_mixture_which_is_mmpretrains(kind, form):
    augments = dict(augments=dict(type=kind, alpha=1.0))
    preprocessor = PairPreprocessor([0.] * 3, [1.] * 3, resolution=8, batch_augments=augments, num_classes=CLASSES)
    seed()
    out = preprocessor(FORMS[form], training=True)
    seed()
    mixed, scores = RandomBatchAugment(**augments)(IMAGES.float(), soft_labels(LABELS, CLASSES))
    high, low = out['inputs']
    assert (mixed != IMAGES).any() and scores.max(1).values.min() < 1
    torch.testing.assert_close(high, mixed.round())
    torch.testing.assert_close(low, preprocessor.downsample(high.to(torch.uint8), 8).float())
    batch = out['data_samples']
    torch.testing.assert_close(batch.scores, scores)
    assert batch.labels is None and batch.index.tolist() == list(range(8))
    seed()
    tests = preprocessor(FORMS[form], training=False)['inputs'].low
    torch.testing.assert_close(tests, preprocessor.downsample(IMAGES, 8).float())         # tests are as they were


def test_the_losses_are_those_of_the_mixture():
    model = distiller(objective=dict(kd=dict(type='mmcrrcd.KDLoss')))
    seed()
    data = model.data_preprocessor(FORMS['in_memory'], training=True)
    parts = model.eval()(**data, mode='loss')
    student, teacher = model.student(data['inputs'].low), model.teacher(data['inputs'].high)
    torch.testing.assert_close(parts['loss_cls'], F.cross_entropy(student, data['data_samples'].scores))
    torch.testing.assert_close(parts['loss_kd'], kd_loss(student, teacher, 4.0))
    assert 'accuracy' not in parts


def test_the_students_train_cfg_means_the_same():
    """As configs of mmpretrain have it; and its own preprocessor, which is not used, mixes nothing."""
    student = network() | dict(train_cfg=MIX)
    values = []
    for model in (distiller(), distiller(preprocessor=settings(), student=student)):
        seed()
        values.append(model(**model.data_preprocessor(FORMS['stacked'], training=True), mode='loss')['loss_cls'])
    assert values[0] == values[1]


def test_a_preprocessor_of_mmpretrain_mixes_for_both():
    own = dict(type='mmpretrain.ClsDataPreprocessor', mean=MEAN, std=STD, num_classes=CLASSES, batch_augments=MIX)
    model = distiller(preprocessor=own, objective=dict(kd=dict(type='mmcrrcd.KDLoss')))
    seed()
    data = model.data_preprocessor(dict(FORMS['listed']), training=True)
    scores = torch.stack([sample.gt_score for sample in data['data_samples']])
    parts = model.eval()(**data, mode='loss')
    torch.testing.assert_close(parts['loss_cls'], F.cross_entropy(model.student(data['inputs']), scores))
    for sample in FORMS['listed']['data_samples']:
        del sample.gt_score


def test_relations_of_images_to_themselves_take_mixtures():
    model = distiller(CRRCD, sampling='unsupervised', num_negatives=12, num_anchors=4, beta=1.0)
    for _ in range(2):                                   # the first fills the queue
        parts = model(**model.data_preprocessor(FORMS['in_memory'], training=True), mode='loss')
    assert parts['loss_rcd'] > 0 and parts['loss_rcd'].isfinite()


@pytest.mark.parametrize('make, match', [
    (lambda: distiller(CRRCD), "batch_augments mix images, and rcd needs the class of each: .* or say sampling='unsupervised'"),
    (lambda: distiller(objective=dict(dkd=dict(type='mmcrrcd.DKDLoss'))), 'dkd needs the class of each'),
    (lambda: distiller(objective=dict(crd=dict(type='mmcrrcd.CRDLoss', num_samples=24))), 'crd needs the class of each'),
    (lambda: distiller(objective=dict(skd=dict(type='mmcrrcd.SKDLoss'))), 'skd needs the class of each'),
    (lambda: distiller(student=network() | dict(train_cfg=MIX)), 'both data_preprocessor.batch_augments and .* train_cfg'),
    (lambda: distiller(preprocessor=dict(type='mmpretrain.ClsDataPreprocessor'), student=network() | dict(train_cfg=MIX)),
     'a data_preprocessor of type ClsDataPreprocessor would not see: set its batch_augments'),
    (lambda: distiller(preprocessor=settings(batch_augments=MIX, num_classes=1000)), 'num_classes is 1000, .* has 4 classes'),
    (lambda: PairPreprocessor(MEAN, STD, batch_augments=MIX)(FORMS['in_memory'], True), 'number of classes is not known'),
    (lambda: PairPreprocessor(MEAN, STD, batch_augments=MIX, num_classes=4)(dict(inputs=IMAGES), True), 'the data have none'),
    (lambda: PairPreprocessor(MEAN, STD, batch_augments=MIX, num_classes=4)(dict(inputs=IMAGES, data_samples=[
        DataSample(img_low=torch.zeros(3, 8, 8, dtype=torch.uint8)).set_gt_label(0)] * 8), True), 'carry img_low')])
def test_what_cannot_be_mixed_is_refused_in_one_line(make, match):
    with pytest.raises(InputError, match=match) as error:
        make()
    assert '\n' not in str(error.value)


def test_a_loss_that_needs_classes_refuses_a_batch_without_also_later():
    """Hooks of mmpretrain, such as SwitchRecipeHook, may begin to mix in the middle of a training."""
    model = distiller(preprocessor=settings(), objective=dict(dkd=dict(type='mmcrrcd.DKDLoss')))
    model.data_preprocessor.batch_augments = RandomBatchAugment(**MIX)
    with pytest.raises(InputError, match='the images of this batch have no class, and dkd needs the class of each'):
        model(**model.data_preprocessor(FORMS['in_memory'], training=True), mode='loss')
