"""What the tools share that draw several networks: which ones, and on which images."""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse

from mmcrrcd.datasets import ImageArrays
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.classifier import Classifier, load_classifier
from mmcrrcd.evaluation.data import NAMED, named_images, own_images
from mmcrrcd.inference import load_student


def add_network_arguments(parser: argparse.ArgumentParser, unit: str) -> None:
    """``unit``: what a network has in the picture, 'line' or 'panel'."""
    parser.add_argument('--run', nargs=3, action='append', required=True, metavar=('CONFIG', 'CHECKPOINT', 'LABEL'),
                        help=f'a network; repeat for more {unit}s')
    parser.add_argument('--teacher', nargs='?', const='', metavar='CHECKPOINT',
                        help=f'one more {unit}: the teacher of the first CONFIG (CHECKPOINT: default as in CONFIG)')
    parser.add_argument('--dataset', choices=NAMED, help="whose test images (default: the first CONFIG's own)")
    parser.add_argument('--data-root', help='where the files of --dataset are (default: data/<dataset>)')


def load_networks(runs: list[tuple[str, str, str]], teacher: str | None) -> dict[str, Classifier]:
    """From (config, checkpoint, label) to the networks by label; then 'teacher', that of the first config, unless None."""
    labels = [label for _, _, label in runs] + ['teacher'] * (teacher is not None)
    double = [label for label in labels if labels.count(label) > 1]
    if double:
        raise InputError(f'two networks are called {double[0]!r}')
    networks = {label: load_student(checkpoint, config).classifier for config, checkpoint, label in runs}
    return networks if teacher is None else networks | dict(teacher=load_classifier(runs[0][0], teacher, teacher=True))


def load_images(args: argparse.Namespace) -> ImageArrays:
    """The test images that the arguments name."""
    return named_images(args.dataset, 'test', args.data_root) if args.dataset else own_images(args.run[0][0])
