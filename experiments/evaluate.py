"""What is asked of a network when it has been trained: the ``results`` of its record, percentages by what they are."""
from pathlib import Path

from mmengine.config import Config
from sklearn.neighbors import KNeighborsClassifier

from mmcrrcd.datasets import lfw_pairs, read_orl, read_tinyface, split_gallery
from mmcrrcd.deployment import count_macs
from mmcrrcd.evaluation.classifier import Classifier, load_classifier
from mmcrrcd.evaluation.data import own_images
from mmcrrcd.evaluation.embeddings import accuracy, embed
from mmcrrcd.evaluation.faces import search, similarities
from mmcrrcd.evaluation.identification import identify
from mmcrrcd.evaluation.linear_probe import PROTOCOL, linear_probe, probe
from mmcrrcd.evaluation.verification import verify
from mmcrrcd.registry import DATASETS

from .studies import STUDIES
from .tables import DOWNSAMPLINGS, TABLES, UNTRAINED, UPSAMPLED

CLASSIFIERS = 3                                          # of each network, in Tables IV and VI
NEIGHBORS = 20                                           # that vote on the class of an embedding
RANKS = (1, 10, 20)


def downsamplings(network: Classifier, config: str, about: dict, side: int) -> dict:
    """Accuracy on the test images downsampled in each way, where it is asked for upsampled again to ``side``, bilinearly."""
    pixels, whole = about['resolution'], about['method'] == 'teacher'
    scale_to = side if whole or about['pair'].endswith(UPSAMPLED) else None
    cfg, test = Config.fromfile(config), own_images(config)
    found = {name: round(accuracy(network.at(pixels, scale_to, upsample=False, **how), test, f'{name}, {pixels} pixels'), 4)
             for name, how in DOWNSAMPLINGS.items()}
    if whole:
        found['full'] = round(accuracy(network, test, f'{side} pixels'), 4)
    images = dict(train=len(DATASETS.build(cfg.train_dataloader.dataset)), test=len(test))
    seen = scale_to or pixels
    return found | dict(macs=round(count_macs(network.network, seen, seen) / 1e6, 1), images=images)


def probed(network: Classifier, config: str, about: dict, dataset: str) -> dict:
    """Linear classifiers on the embeddings of another data set."""
    found = probe(network, dataset, None, CLASSIFIERS)
    return dict(probe=found['mean'], probes=found['last_epoch'], images=found['images'])


def verified(network: Classifier, config: str, about: dict, pairs: str, images: str, folds: list[int] | None = None) -> dict:
    """Are two faces of one person?"""
    data = lfw_pairs(images, pairs, network.side, folds)
    found = verify(similarities(network, data), data.same, data.fold)
    return dict(accuracy=found.accuracy, accuracies=found.accuracies, eer=100 * found.roc.eer(), auc=found.roc.auc(),
                pairs=len(data))


def identified(network: Classifier, config: str, about: dict, tinyface: str | None = None, orl: str | None = None) -> dict:
    """Faces looked for in a gallery."""
    if tinyface:
        network, (gallery, probes, others) = network.straight(), read_tinyface(tinyface)
    else:
        (gallery, probes), others = split_gallery(read_orl(orl), 1), None
    found = search(network, gallery, probes, others)
    return {f'rank-{k}': found.rank(k) for k in RANKS} | dict(mAP=found.mean_average_precision, probes=len(probes.ids),
                                                              searched=found.searched)


def embedded(network: Classifier, config: str, about: dict) -> dict:
    """Is the class in the frozen embedding? A linear classifier, nearest neighbors, a search among the training images."""
    data = DATASETS.build(Config.fromfile(config).train_dataloader.dataset), own_images(config)
    (x, _), (x_test, _) = (embed(network, images, f'{name} images') for name, images in zip(('training', 'test'), data))
    y, y_test = (images.labels.to(x.device) for images in data)
    _, curve = linear_probe(x, y, x_test, y_test, len(data[0].metainfo['classes']), 0, **PROTOCOL)
    neighbors = KNeighborsClassifier(NEIGHBORS, metric='cosine').fit(x.cpu().numpy(), y.cpu().numpy())
    found = identify(x, y, x_test, y_test)
    return {'probe': curve[-1], 'neighbors': 100 * neighbors.score(x_test.cpu().numpy(), y_test.cpu().numpy()),
            'rank-1': found.rank(1), 'mAP': found.mean_average_precision}


EVALUATIONS = dict(downsampling=downsamplings, probe=probed, verify=verified, identify=identified, embedding=embedded)


def results(about: dict, config: Path, checkpoint: str, rows: list[dict]) -> dict:
    """Of a network by the config and checkpoint of its training, whose epochs are ``rows`` (none of a teacher)."""
    tested = {row['epoch']: row['accuracy'] for row in rows if 'accuracy' in row}
    found = dict(last=tested[max(tested)], best=max(tested.values())) if tested else {}
    experiment = about['experiment']
    table = TABLES.get(experiment) or STUDIES.get(experiment.removeprefix('study_'))
    if table and table.evaluation in EVALUATIONS:
        network = load_classifier(str(config), checkpoint)
        found |= EVALUATIONS[table.evaluation](network, str(config), about, **getattr(table, 'arguments', {}))
    if about['method'] in UNTRAINED and Config.fromfile(config).get('val_dataloader'):
        found['last'] = round(accuracy(load_classifier(str(config), checkpoint), own_images(str(config)), 'teacher'), 4)
    return found


def in_words(found: dict) -> str:
    """The numbers among the results."""
    numbers = {name: value for name, value in found.items() if isinstance(value, (int, float))}
    return ', '.join(f'{name} {value:.2f}' for name, value in numbers.items()) or 'trained'
