"""How much of a teacher have students taken over? What they and the teacher say of the same test images.

    python benchmarks/agreement.py --run CONFIG CHECKPOINT KD --run CONFIG CHECKPOINT CRRCD --teacher [CHECKPOINT]

Runs of one label are seeds of one method. Of each network, on the test images of the first config: accuracy; confidence, the
mean of the largest probability; negative log-likelihood of the labels, and the least that it comes to with the logits over a
temperature, which is chosen on these images; how often the teacher names the same class; Eq. 12 of the paper against it, at
the paper's temperature; and the correlation of the cosines of all pairs of embeddings with those of the teacher's. And the
accuracy on the training images as they are, neither cropped nor mirrored. Writes ``benchmarks/results/agreement.json`` and
prints its table.
"""
import argparse
from pathlib import Path
from statistics import mean, stdev

import torch
from environment import KEPT, about_this_run, conditions, keep
from mmengine.config import Config
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.engine.launch import check_output, one_line_errors
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.embeddings import accuracy, embed, load_classifier, own_images
from mmcrrcd.models import kd_loss
from mmcrrcd.registry import DATASETS

RESULT = KEPT / 'agreement.json'
TEMPERATURE = 4                                          # the paper's, Sec. IV-A
SCALES = torch.arange(0.5, 5, 0.05).tolist()
COLUMNS = dict(                                          # and decimals
    accuracy=('test images (%)', 2), train_accuracy=('training images (%)', 2), confidence=('confidence (%)', 1),
    nll=('negative log-likelihood', 3), scaled_nll=('at the best temperature', 3), scale=('which is', 2),
    agreement=('same class as the teacher (%)', 2), kl=('Eq. 12 against the teacher', 2), cosines=('correlation of cosines', 3))


def cosine_correlation(a: Tensor, b: Tensor, rows: int = 1000) -> float:
    """Pearson's correlation, over all pairs of different images, of their cosine in ``a`` (N, D) and in ``b`` (N, D')."""
    a, b = (F.normalize(x.double()) for x in (a, b))
    sums = torch.zeros(5, dtype=torch.float64, device=a.device)
    for some in torch.arange(len(a), device=a.device).split(rows):
        x, y = (each[some] @ each.mT for each in (a, b))
        others = torch.ones_like(x)
        others[torch.arange(len(some)), some] = 0        # not an image with itself
        sums += torch.stack([(others * term).sum() for term in (x, y, x * x, y * y, x * y)])
    x, y, xx, yy, xy = (sums / (len(a) * (len(a) - 1))).tolist()
    return (xy - x * y) / ((xx - x * x) * (yy - y * y))**0.5


def compare(network: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], labels: Tensor) -> dict[str, float]:
    """What stands in a row, but for the training images; a network is its embeddings (N, D) and logits (N, classes)."""
    (embedding, logits), (embedding_t, logits_t) = network, teacher
    scaled, scale = min((F.cross_entropy(logits / scale, labels).item(), scale) for scale in SCALES)
    return dict(accuracy=round(100 * (logits.argmax(1) == labels).double().mean().item(), 2),
                nll=F.cross_entropy(logits, labels).item(),
                scaled_nll=scaled, scale=scale, confidence=100 * logits.softmax(1).amax(1).mean().item(),
                agreement=100 * (logits.argmax(1) == logits_t.argmax(1)).double().mean().item(),
                kl=kd_loss(logits, logits_t, TEMPERATURE).item(), cosines=cosine_correlation(embedding, embedding_t))


def measure(runs: list[tuple[str, str, str]], teacher: str) -> dict:
    training = {config: Config.fromfile(config).train_dataloader.dataset for config, *_ in runs}
    for config, dataset in training.items():
        if 'pipeline' in dataset:
            raise InputError(f'{config} trains on a pipeline: its training images are asked for as arrays')
    config = runs[0][0]
    test = own_images(config)
    of_teacher = embed(load_classifier(config, teacher, teacher=True), test, 'teacher')
    labels = test.labels.to(of_teacher[0].device)
    rows = [dict(label='teacher', **compare(of_teacher, of_teacher, labels))]
    for config, checkpoint, label in runs:
        student = load_classifier(config, checkpoint)
        row = compare(embed(student, test, label), of_teacher, labels)
        train = accuracy(student, DATASETS.build(training[config]), f'{label}, training images')
        rows.append(dict(label=label, train_accuracy=round(train, 2), **row))
    return dict(**about_this_run(), rows=rows)


def cell(values: list[float], decimals: int) -> str:
    if not values:
        return '–'
    return f'{mean(values):.{decimals}f}' + (f' ± {stdev(values):.{decimals}f}' if len(values) > 1 else '')


def table(result: dict) -> str:
    """Markdown: a row a label, mean ± standard deviation over its runs."""
    lines = [f'| | runs | {" | ".join(title for title, _ in COLUMNS.values())} |', '|---' * (len(COLUMNS) + 2) + '|']
    for label in dict.fromkeys(row['label'] for row in result['rows']):
        runs = [row for row in result['rows'] if row['label'] == label]
        values = [cell([row[key] for row in runs if key in row], decimals) for key, (_, decimals) in COLUMNS.items()]
        lines.append(f'| {label} | {len(runs)} | {" | ".join(values)} |')
    return '\n'.join([*lines, '', conditions(result)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run', nargs=3, action='append', required=True, metavar=('CONFIG', 'CHECKPOINT', 'LABEL'))
    parser.add_argument('--teacher', default='', metavar='CHECKPOINT', help='default: as in the first CONFIG')
    parser.add_argument('--json', type=Path, default=RESULT, metavar='FILE', help=f'where the numbers go (default: {RESULT})')
    args = parser.parse_args()
    with one_line_errors():
        check_output(args.json)
        result = measure(args.run, args.teacher)
    keep(result, args.json, table(result))


if __name__ == '__main__':
    main()
