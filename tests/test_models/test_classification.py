"""A student's classification loss is that of mmpretrain's own training, whatever its head; or refused in one line."""
import copy

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from tiny import CLASSES, MEAN, STD

import mmpretrain.models  # noqa: F401
from mmcrrcd.errors import InputError
from mmcrrcd.models import Distiller
from mmcrrcd.models.classification import check_head, soft_labels
from mmcrrcd.registry import MODELS

IMAGES = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 1, 0])
MIXED = torch.rand(6, CLASSES, generator=torch.Generator().manual_seed(1)).softmax(1)


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def student(head: str = 'LinearClsHead', **settings) -> dict:
    return dict(type='mmpretrain.ImageClassifier', neck=dict(type='mmpretrain.GlobalAveragePooling'),
                backbone=dict(type='mmcrrcd.ResNetCIFAR', depth=8),
                head=dict(type=f'mmpretrain.{head}', num_classes=CLASSES, in_channels=64, **settings))


def samples(scores=None) -> list[DataSample]:
    found = [DataSample().set_gt_label(label) for label in LABELS]
    return found if scores is None else [each.set_gt_score(score) for each, score in zip(found, scores)]


def ours_and_theirs(settings: dict, scores: torch.Tensor | None, scores_of_mmpretrain: torch.Tensor | None):
    """The classification loss of a distiller, and what mmpretrain's classifier alone says of the same images."""
    torch.manual_seed(0)
    model = Distiller(student(**settings), data_preprocessor=dict(type='mmcrrcd.PairPreprocessor', mean=MEAN, std=STD)).train()
    images = model.data_preprocessor.normalize(IMAGES)
    copied = copy.deepcopy(model.student)                # some losses count the images of each class
    ours = model(images, samples(scores), mode='loss')['loss_cls']
    return ours, copied.loss(images, samples(scores_of_mmpretrain))['loss'], model, copied


@pytest.mark.parametrize('settings, one_hot', [
    (dict(), False),
    (dict(loss=dict(type='CrossEntropyLoss', loss_weight=0.5, class_weight=[1., 2., 3., 4.])), False),
    (dict(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='classy_vision')), False),
    (dict(loss=dict(type='FocalLoss')), False),
    (dict(loss=dict(type='AsymmetricLoss')), False),
    (dict(loss=dict(type='SeesawLoss', num_classes=CLASSES)), False),
    (dict(loss=dict(type='CrossEntropyLoss', use_soft=True)), True),
    (dict(loss=dict(type='CrossEntropyLoss', use_sigmoid=True)), True),
    (dict(head='StackedLinearClsHead', mid_channels=[8]), False),
    (dict(head='ArcFaceClsHead', scale=8.), False),
    (dict(head='ArcFaceClsHead', scale=8., margins=[0.1, 0.2, 0.3, 0.4], num_subcenters=3), False),
    (dict(head='ArcFaceClsHead', scale=8., easy_margin=True), False)])
def test_the_loss_and_its_gradient_are_mmpretrains(settings, one_hot):
    ours, theirs, model, copied = ours_and_theirs(settings, None, soft_labels(LABELS, CLASSES) if one_hot else None)
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    for mine, other in zip(model.student.parameters(), copied.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_the_margin_is_in_the_loss_and_not_in_what_the_student_says():
    ours, _, model, copied = ours_and_theirs(dict(head='ArcFaceClsHead', scale=8.), None, None)
    images = model.data_preprocessor.normalize(IMAGES)
    torch.testing.assert_close(model.eval()(images), copied.eval()(images))
    without = ours_and_theirs(dict(head='ArcFaceClsHead', scale=8., margins=0.0), None, None)[0]
    assert ours > without + 1


@pytest.mark.parametrize('loss', [
    dict(type='CrossEntropyLoss'), dict(type='CrossEntropyLoss', use_soft=True),
    dict(type='CrossEntropyLoss', use_sigmoid=True), dict(type='LabelSmoothLoss', label_smooth_val=0.1)])
def test_soft_labels_as_mmpretrain_takes_them(loss):
    torch.testing.assert_close(*ours_and_theirs(dict(loss=loss), MIXED, MIXED)[:2])


def test_soft_labels_of_classes_and_of_none():
    assert soft_labels(torch.tensor([2, -100]), 3).tolist() == [[0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize('head, soft, match', [
    (dict(type='DeiTClsHead'), False, 'DeiTClsHead has a second classifier'),
    (dict(type='LeViTClsHead', distillation=True), False, 'LeViTClsHead has a second classifier'),
    (dict(type='MultiLabelLinearClsHead'), False, 'MultiLabelLinearClsHead computes its loss in a way of its own'),
    (dict(type='ArcFaceClsHead'), True, 'the margin of a ArcFaceClsHead is for images of one class'),
    (dict(type='mmcrrcd.CosineHead', margin=dict(type='mmcrrcd.ArcFaceMargin')), True, 'margin of a CosineHead is for'),
    (dict(type='mmcrrcd.MagFaceHead'), True, 'the margin of a MagFaceHead'),
    (dict(type='LinearClsHead', loss=dict(type='SeesawLoss', num_classes=CLASSES)), True,
     'the SeesawLoss of the LinearClsHead cannot take the soft labels of images that batch_augments mix'),
    (dict(type='LinearClsHead', loss=dict(type='CrossEntropyLoss', reduction='sum')), False,
     'the CrossEntropyLoss of the LinearClsHead cannot take the classes of images: avg_factor')])
def test_heads_that_cannot_be_trained_are_refused_in_one_line(head, soft, match):
    with pytest.raises(InputError, match=match) as error:
        check_head(MODELS.build(dict(num_classes=CLASSES, in_channels=8) | head), soft)
    assert '\n' not in str(error.value)


def test_a_student_with_such_a_head_is_refused():
    settings = student()
    settings['head'] = dict(type='mmpretrain.MultiLabelLinearClsHead', num_classes=CLASSES, in_channels=64)
    with pytest.raises(InputError, match='head is a MultiLabelLinearClsHead'):
        Distiller(settings)
