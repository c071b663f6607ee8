"""The classifier fitted anew after the last epoch."""
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tiny import CLASSES, config, crrcd, network, train, write_teacher
from torch import nn

from mmcrrcd.engine import RefitHeadHook
from mmcrrcd.errors import InputError
from mmcrrcd.models.losses.kd import kd_loss

REFIT = dict(type='mmcrrcd.RefitHeadHook', passes=2)


def clouds(number: int = 300, width: int = 5):
    torch.manual_seed(0)
    labels = torch.arange(number) % CLASSES
    return 3 * torch.randn(CLASSES, width)[labels] + 2 * torch.randn(number, width) + 7, labels


def test_the_fit_with_labels_is_that_of_scikit_learn():
    x, labels = clouds()
    layer, decay = nn.Linear(x.shape[1], CLASSES), 1e-2
    RefitHeadHook(cls_weight=1, iterations=200, decay=decay).fit(layer, x, labels, None)
    scale = x.std(0, correction=0) + 1e-3
    expected = LogisticRegression(C=1 / (2 * decay * len(x)), max_iter=2000, tol=1e-8).fit((x - x.mean(0)) / scale, labels)
    found = layer(x).softmax(1).detach()
    wanted = torch.from_numpy(expected.predict_proba((x - x.mean(0)) / scale)).float()
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)


def test_the_fit_to_a_teacher_of_the_same_embedding_finds_its_logits():
    x, _ = clouds()
    torch.manual_seed(1)
    teacher, layer = nn.Linear(x.shape[1], CLASSES), nn.Linear(x.shape[1], CLASSES)
    logits = teacher(x).detach()
    before, after = RefitHeadHook(decay=0, iterations=300).fit(layer, x, None, logits)
    assert after < 1e-4 < before
    assert kd_loss(layer(x), logits, 4.0) < 1e-3


def test_only_the_classifier_changes_after_the_last_epoch_and_that_is_saved(tmp_path):
    model = crrcd(write_teacher(tmp_path / 'teacher.pth'))
    plain, refitted = (train(config(tmp_path / name, model, epochs=2, custom_hooks=[
        *config(tmp_path, model).custom_hooks, *hooks])) for name, hooks in (('plain', []), ('refit', [REFIT])))
    expected, found = plain.model.state_dict(), refitted.model.state_dict()
    changed = {name for name in expected if not torch.equal(expected[name], found[name])}
    assert changed == {'student.head.fc.weight', 'student.head.fc.bias'}
    saved = torch.load(tmp_path / 'refit' / 'epoch_2.pth', weights_only=True)['state_dict']
    assert torch.equal(saved['student.head.fc.weight'], found['student.head.fc.weight'])
    assert refitted.model.training == plain.model.training


def test_what_it_cannot_fit_is_refused_before_training(tmp_path):
    model = crrcd(write_teacher(tmp_path / 'teacher.pth'))
    stacked = network() | dict(head=dict(type='mmpretrain.StackedLinearClsHead', num_classes=CLASSES, in_channels=16,
                                         mid_channels=[8]))
    hooks = [*config(tmp_path, model).custom_hooks, REFIT]
    with pytest.raises(InputError, match='LinearClsHead'):
        train(config(tmp_path / 'a', model | dict(student=stacked), custom_hooks=hooks))
    with pytest.raises(InputError, match='EMAHook'):
        train(config(tmp_path / 'b', model, custom_hooks=[*hooks, dict(type='EMAHook')]))


def test_nothing_to_fit_is_refused():
    x, _ = clouds()
    with pytest.raises(InputError, match='labels or the logits'):
        RefitHeadHook().fit(nn.Linear(x.shape[1], CLASSES), x, None, None)
