"""What is asked of a network when it has been trained: the ``results`` of its record, percentages by what they are."""
from pathlib import Path

import numpy as np
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.device import get_device

from mmcrrcd.datasets import lfw_pairs, read_orl, read_tinyface, split_gallery
from mmcrrcd.evaluation.embeddings import Classifier, accuracy, embed_blocks, embed_images, load_classifier, own_images
from mmcrrcd.evaluation.identification import identify
from mmcrrcd.evaluation.linear_probe import probe
from mmcrrcd.evaluation.verification import cosines, verify
from mmcrrcd.registry import DATASETS

from .tables import DOWNSAMPLINGS, TABLES, UNTRAINED, UPSAMPLED

CLASSIFIERS = 3                                          # of each network, in Tables IV and VI
RANKS = (1, 10, 20)


def macs(network: Classifier, pixels: int) -> float:
    """Millions in convolutions and linear layers for an image of so many pixels a side."""
    found = FlopAnalyzer(network.network, torch.zeros(1, 3, pixels, pixels, device=get_device()))
    operators = found.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return round((operators['conv'] + operators['linear']) / 1e6, 1)


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
    return found | dict(macs=macs(network, scale_to or pixels), images=images)


def probed(network: Classifier, config: str, about: dict, dataset: str) -> dict:
    """Linear classifiers on the embeddings of another data set."""
    found = probe(network, dataset, None, CLASSIFIERS)
    return dict(probe=found['mean'], probes=found['last_epoch'], images=found['images'])


def verified(network: Classifier, config: str, about: dict, pairs: str, images: str, folds: list[int] | None = None) -> dict:
    """Are two faces of one person?"""
    data = lfw_pairs(images, pairs, network.side, folds)
    scores = cosines(embed_images(network, data.images, 'embeddings'), data.left, data.right)
    found = verify(scores, data.same, data.fold)
    return dict(accuracy=found.accuracy, accuracies=found.accuracies, eer=100 * found.roc.eer(), auc=found.roc.auc(),
                pairs=len(data))


def identified(network: Classifier, config: str, about: dict, tinyface: str | None = None, orl: str | None = None) -> dict:
    """Faces looked for in a gallery."""
    if tinyface:
        network, (gallery, probes, others) = network.straight(), read_tinyface(tinyface)
    else:
        (gallery, probes), others = split_gallery(read_orl(orl), 1), None
    (x, ids), (x_probe, probe_ids) = ((torch.cat(list(embed_blocks(network, faces.blocks(network.side)))),
                                       torch.from_numpy(np.asarray(faces.ids))) for faces in (gallery, probes))
    distractors = embed_blocks(network, others.blocks(network.side)) if others else ()
    found = identify(x, ids, x_probe, probe_ids, distractors)
    return {f'rank-{k}': found.rank(k) for k in RANKS} | dict(mAP=found.mean_average_precision, probes=len(probe_ids),
                                                              searched=found.searched)


EVALUATIONS = dict(downsampling=downsamplings, probe=probed, verify=verified, identify=identified)


def results(about: dict, config: Path, checkpoint: str, rows: list[dict]) -> dict:
    """Of a network by the config and checkpoint of its training, whose epochs are ``rows`` (none of a teacher)."""
    tested = {row['epoch']: row['accuracy'] for row in rows if 'accuracy' in row}
    found = dict(last=tested[max(tested)], best=max(tested.values())) if tested else {}
    table = TABLES.get(about['experiment'])
    if table and table.evaluation in EVALUATIONS:
        network = load_classifier(str(config), checkpoint)
        found |= EVALUATIONS[table.evaluation](network, str(config), about, **table.arguments)
    if about['method'] in UNTRAINED and Config.fromfile(config).get('val_dataloader'):
        found['last'] = round(accuracy(load_classifier(str(config), checkpoint), own_images(str(config)), 'teacher'), 4)
    return found


def in_words(found: dict) -> str:
    """The numbers among the results."""
    numbers = {name: value for name, value in found.items() if isinstance(value, (int, float))}
    return ', '.join(f'{name} {value:.2f}' for name, value in numbers.items()) or 'trained'
