"""Linear probe: a linear classifier on the embeddings of a frozen network, Table IV of the paper."""
from statistics import mean, stdev

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .classifier import Classifier
from .data import named_images
from .embeddings import embed

# Neither the paper nor CRD, which it follows, gives the training of the classifier; mdistiller#59 says weight decay 0 and
# frozen batch norms. These are the settings of github.com/winycg/HSAKD, eval_rep.py (c4be450), which repeats that table.
PROTOCOL = dict(epochs=100, batch_size=64, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.0, milestones=(30, 60, 90))


def linear_probe(train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, classes: int, seed: int,
                 epochs: int, batch_size: int, lr: float, milestones: tuple[int, ...],
                 **optimizer) -> tuple[nn.Linear, list[float]]:
    """Train a linear classifier by SGD on embeddings; ``**PROTOCOL`` are the published settings.

    Args:
        train, test: (N, D) float32 embeddings, on one device with their N labels, int64.
        seed: of the first weights and of the order of the samples.
        milestones: epochs after which the rate is divided by 10.
        optimizer: momentum and so on, of ``torch.optim.SGD``.

    Returns:
        The classifier, and its accuracy on ``test`` in percent after each epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = nn.Linear(train.shape[1], classes).to(train.device)
    sgd = torch.optim.SGD(classifier.parameters(), lr=lr, **optimizer)
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, milestones)
    curve = []
    for _ in range(epochs):
        order = torch.randperm(len(train), generator=generator).to(train.device)
        for index in order.split(batch_size):
            sgd.zero_grad()
            F.cross_entropy(classifier(train[index]), labels[index]).backward()
            sgd.step()
        schedule.step()
        with torch.no_grad():
            curve.append((classifier(test).argmax(1) == test_labels).float().mean().mul(100))
    return classifier, torch.stack(curve).tolist()


def probe(network: Classifier, dataset: str, data_root: str | None, seeds: int) -> dict:
    """Trains and tests so many classifiers on the embeddings of a data set; their accuracies in percent, and the conditions."""
    train, test = (named_images(dataset, split, data_root) for split in ('train', 'test'))
    path = network.path_of(test.images)
    print(f'{len(train):,} training and {len(test):,} test images; pixels: {path}')
    (x, _), (x_test, _) = embed(network, train, 'embeddings (train)'), embed(network, test, 'embeddings (test)')
    y, y_test = (data.labels.to(x.device) for data in (train, test))
    classes, curves = len(train.metainfo['classes']), []
    for seed in range(seeds):
        _, curve = linear_probe(x, y, x_test, y_test, classes, seed, **PROTOCOL)
        curves.append(curve)
        print(f'seed {seed}: {curve[-1]:.2f} % after the last epoch, {max(curve):.2f} % after the best')
    last, best = [curve[-1] for curve in curves], [max(curve) for curve in curves]
    return dict(dataset=dataset, pixels=path, images=dict(train=len(train), test=len(test)), classes=classes, width=x.shape[1],
                protocol=PROTOCOL, seeds=list(range(seeds)), last_epoch=last, best_epoch=best, mean=mean(last),
                std=stdev(last) if len(last) > 1 else None)
