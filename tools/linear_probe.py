"""How well do the features of a trained network serve another data set? A linear classifier on its frozen embeddings.

``python tools/linear_probe.py CONFIG CHECKPOINT --dataset stl10``. Table IV of the paper: CIFAR-100 to STL-10, TinyImageNet.
"""
import argparse
import json
from pathlib import Path
from statistics import mean, stdev

from mmcrrcd.engine.launch import check_output, one_line_errors
from mmcrrcd.environment import about_this_run
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.embeddings import NAMED, Classifier, embed, load_classifier, named_images
from mmcrrcd.evaluation.linear_probe import PROTOCOL, linear_probe


def parse_args() -> argparse.Namespace:
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
    return parser.parse_args()


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


def main() -> None:
    args = parse_args()
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
        Path(args.json).write_text(json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
    main()
