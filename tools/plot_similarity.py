"""Similarities of positive and of negative pairs of faces, a panel for each network, Figure 5 of the paper.

``python tools/plot_similarity.py CONFIG CHECKPOINT CONFIG CHECKPOINT --labels ArcFace CRRCD --resolution 16 --pairs
data/lfw/pairs.txt --images data/lfw/lfw --out similarity.png``
"""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse
from pathlib import Path

from _faces import add_view_arguments, add_pair_arguments, at_resolution, read_pairs

from mmcrrcd.command_line import one_line_errors, picture_and_numbers
from mmcrrcd.environment import about_this_run
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.classifier import load_classifier
from mmcrrcd.evaluation.faces import similarities
from mmcrrcd.evaluation.margins import BINS, expectation_margin, histogram_intersection
from mmcrrcd.files import write_json
from mmcrrcd.visualization.picture import save_picture
from mmcrrcd.visualization.similarity import draw_similarities


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw how the cosines of positive and of negative pairs of faces are '
                                     'distributed, with expectation margin and histogram intersection.')
    parser.add_argument('runs', nargs='+', metavar='CONFIG CHECKPOINT',
                        help='a network; more of them for more panels (a teacher by the config of its own training)')
    parser.add_argument('--labels', nargs='+', metavar='NAME', help='of the panels (default: the names of the configs)')
    add_pair_arguments(parser)
    add_view_arguments(parser)
    parser.add_argument('--out', default='similarity.png', metavar='FILE', help='picture; the numbers go beside it as .json')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        if len(args.runs) % 2:
            raise InputError(f'a CHECKPOINT follows each CONFIG, got {" ".join(args.runs)}')
        runs = list(zip(args.runs[::2], args.runs[1::2]))
        labels = args.labels or [Path(config).stem for config, _ in runs]
        if len(labels) != len(runs) or len(set(labels)) < len(labels):
            raise InputError(f'{len(runs)} networks need as many different --labels, got {", ".join(labels)}')
        picture, numbers_file = picture_and_numbers(args.out)
        networks = {label: at_resolution(load_classifier(config, checkpoint, side=args.image_size), args.resolution)
                    for label, (config, checkpoint) in zip(labels, runs)}
        pairs = read_pairs(args, max(network.side for network in networks.values()))
        panels, numbers = {}, []
        for label, network in networks.items():
            panels[label] = scores = similarities(network, pairs, args.flip, label)
            row = dict(label=label, pixels=network.path_of(pairs.images), positive_mean=float(scores[pairs.same].mean()),
                       negative_mean=float(scores[~pairs.same].mean()),
                       expectation_margin=expectation_margin(scores, pairs.same),
                       histogram_intersection=histogram_intersection(scores, pairs.same))
            numbers.append(row)
            print(f'{label}: expectation margin {row["expectation_margin"]:.3f}, histogram intersection '
                  f'{row["histogram_intersection"]:.3f}; pixels: {row["pixels"]}')
        title = pairs.name.partition(' (')[0] + (f' at {args.resolution}×{args.resolution} px' if args.resolution else '')
        figure = draw_similarities(panels, pairs.same, title)
        result = dict(**about_this_run(), runs=runs, data=pairs.name, positive_pairs=int(pairs.same.sum()),
                      negative_pairs=int((~pairs.same).sum()), flip=args.flip, bins=BINS, networks=numbers)
        write_json(numbers_file, result)
        save_picture(figure, picture)
        print(f'wrote {picture} and {numbers_file}')


if __name__ == '__main__':
    main()
