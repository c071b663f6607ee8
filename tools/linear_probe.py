"""How well do the features of a trained network serve another data set? A linear classifier on its frozen embeddings.

``python tools/linear_probe.py CONFIG CHECKPOINT --dataset stl10``. Table IV of the paper: CIFAR-100 to STL-10, Tiny ImageNet.
"""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse

from mmcrrcd.command_line import check_output, one_line_errors
from mmcrrcd.environment import about_this_run
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.classifier import load_classifier
from mmcrrcd.evaluation.data import NAMED
from mmcrrcd.evaluation.linear_probe import probe
from mmcrrcd.files import write_json


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a linear classifier on the embeddings of a frozen network.')
    parser.add_argument('config', help='config of the training, or of an exported student')
    parser.add_argument('checkpoint', help='file or work directory')
    parser.add_argument('--dataset', required=True, choices=NAMED, help='what the classifier is trained and tested on')
    parser.add_argument('--data-root', help='where its files are (default: data/<dataset>)')
    parser.add_argument('--teacher', action='store_true', help="CHECKPOINT is that of the config's teacher, not of its student")
    parser.add_argument('--resolution', type=int, help='pixels that the network sees (default: as in its training)')
    parser.add_argument('--image-size', type=int, metavar='PIXELS',
                        help="size of the training's images, to which all are brought first (default: the config's, or 32)")
    parser.add_argument('--seeds', type=int, default=3, help='number of classifiers, with seeds 0, 1, ... (default: 3)')
    parser.add_argument('--json', metavar='FILE', help='write the numbers and their conditions')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        if args.seeds < 1:
            raise InputError(f'--seeds is a number of classifiers, got {args.seeds}')
        if args.image_size is not None and args.image_size < 1:
            raise InputError(f'--image-size is a number of pixels, got {args.image_size}')
        if args.json:
            check_output(args.json)
        network = load_classifier(args.config, args.checkpoint, args.teacher, args.image_size)
        if args.resolution is not None:
            network = network.at(args.resolution)
        found = probe(network, args.dataset, args.data_root, args.seeds)
        spread = '' if found['std'] is None else f' ± {found["std"]:.2f}'
        print(f'{args.dataset}: {found["mean"]:.2f}{spread} %')
        if args.json:
            result = dict(**about_this_run(), config=args.config, checkpoint=args.checkpoint,
                          network='teacher' if args.teacher else 'student', **found)
            write_json(args.json, result)


if __name__ == '__main__':
    main()
