"""The linear probe against scikit-learn, and the protocol that it cites."""
import runpy

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from utils import shared_file

from mmcrrcd.evaluation.linear_probe import PROTOCOL, linear_probe
from mmcrrcd.models import ResNetCIFAR

CLASSES = 4
SHORT = PROTOCOL | dict(epochs=3)


def features(rng: np.random.Generator, centers: np.ndarray, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clouds that overlap, so that the best linear classifier is finite; not negative, as after a ReLU."""
    labels = np.arange(n) % CLASSES
    x = (centers[labels] + rng.normal(0, 1.2, (n, centers.shape[1]))).clip(0)
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(labels)


@pytest.fixture(scope='module')
def data():
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 1, (CLASSES, 8))
    return *features(rng, centers, 1000), *features(rng, centers, 500)


def test_published_settings():
    assert PROTOCOL == dict(epochs=100, batch_size=64, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.0,
                            milestones=(30, 60, 90))


def test_agrees_with_logistic_regression_without_penalty(data):
    """Stated tolerance: training loss 2e-3, test accuracy 0.5 %, probabilities 0.03."""
    LogisticRegression = pytest.importorskip('sklearn.linear_model').LogisticRegression
    x, y, x_test, y_test = data
    exact = LogisticRegression(C=np.inf, tol=1e-8, max_iter=5000).fit(x.numpy(), y.numpy())
    least = -np.log(exact.predict_proba(x.numpy())[np.arange(len(y)), y.numpy()]).mean()
    classifier, curve = linear_probe(*data, CLASSES, seed=0, **PROTOCOL)
    with torch.no_grad():
        loss = F.cross_entropy(classifier(x), y).item()
        probabilities = classifier(x_test).softmax(1).numpy()
    assert least - 1e-6 < loss < least + 2e-3
    assert curve[-1] == pytest.approx(100 * exact.score(x_test.numpy(), y_test.numpy()), abs=0.5)
    assert 60 < curve[-1] < 90                           # neither trivial nor hopeless
    np.testing.assert_allclose(probabilities, exact.predict_proba(x_test.numpy()), atol=0.03)


def test_agrees_on_embeddings_of_real_images():
    """Of a network, with the same penalty. Stated tolerance: training loss 2e-3, test accuracy 1 %, 94 % of the answers."""
    LogisticRegression = pytest.importorskip('sklearn.linear_model').LogisticRegression
    shared_file('data', 'cifar100', 'test_00.webp')
    images, labels = runpy.run_path(str(shared_file('data', 'unpack.py')))['cifar100_arrays']('test')
    few = np.asarray(labels) < 10                        # a thousand images, of ten classes
    torch.manual_seed(0)
    network = ResNetCIFAR(20).train()                    # random weights, batch norms of these images
    with torch.no_grad():
        x = (torch.from_numpy(np.asarray(images)[few]).permute(0, 3, 1, 2).float() - 120) / 65
        x, y = network(x)[-1].mean((2, 3)), torch.from_numpy(np.asarray(labels)[few]).long()
    train, test, penalty = slice(0, 700), slice(700, None), 1e-2
    exact = LogisticRegression(C=1 / (700 * penalty), tol=1e-8, max_iter=5000).fit(x[train].numpy(), y[train].numpy())
    least = -np.log(exact.predict_proba(x[train].numpy())[np.arange(700), y[train].numpy()]).mean()
    settings = PROTOCOL | dict(weight_decay=penalty)
    classifier, curve = linear_probe(x[train], y[train], x[test], y[test], 10, seed=0, **settings)
    with torch.no_grad():
        assert F.cross_entropy(classifier(x[train]), y[train]).item() == pytest.approx(least, abs=2e-3)
        answers = classifier(x[test]).argmax(1).numpy()
    assert curve[-1] == pytest.approx(100 * exact.score(x[test].numpy(), y[test].numpy()), abs=1)
    assert (answers == exact.predict(x[test].numpy())).mean() >= 0.94
    assert curve[-1] > 20                                # chance is 10


def test_a_seed_gives_the_same_numbers_and_leaves_the_global_generator_alone(data):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    runs = {name: linear_probe(*data, CLASSES, seed=seed, **SHORT) for name, seed in (('a', 0), ('b', 0), ('c', 1))}
    assert torch.equal(torch.rand(1), expected)
    (first, curve), (second, again), (other, _) = runs.values()
    assert curve == again and torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, other.weight)


def test_curve_is_the_accuracy_after_each_epoch(data):
    x, y, x_test, y_test = data
    curve = linear_probe(*data, CLASSES, seed=0, **SHORT)[1]
    assert len(curve) == 3
    for epochs in (1, 3):
        classifier, _ = linear_probe(*data, CLASSES, seed=0, **SHORT | dict(epochs=epochs))
        weight, bias = classifier.weight.detach().double(), classifier.bias.detach().double()
        scores = [[float(weight[k] @ sample.double() + bias[k]) for k in range(CLASSES)] for sample in x_test]
        right = sum(row.index(max(row)) == truth for row, truth in zip(scores, y_test.tolist(), strict=True))
        assert curve[epochs - 1] == pytest.approx(100 * right / len(y_test), abs=1e-4)


def test_rate_falls_after_the_milestones(data):
    """With a rate of zero after the first epoch, the second changes nothing."""
    one, _ = linear_probe(*data, CLASSES, seed=0, **SHORT | dict(epochs=1, momentum=0, nesterov=False))
    still, _ = linear_probe(*data, CLASSES, seed=0, **SHORT | dict(epochs=2, momentum=0, nesterov=False, milestones=[1] * 40))
    torch.testing.assert_close(one.weight, still.weight, atol=0, rtol=0)
