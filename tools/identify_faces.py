"""Who is it? Probes looked for in a gallery: TinyFace with its distractors, Table VII of the paper, and ORL.

``python tools/identify_faces.py CONFIG CHECKPOINT --tinyface data/tinyface``, or ``--orl data/orl/orl --resolution 16``
"""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse

import numpy as np
from _faces import add_view_arguments, at_resolution
from rich.console import Console
from rich.table import Table

from mmcrrcd.command_line import check_output, one_line_errors
from mmcrrcd.datasets import read_orl, read_tinyface, split_gallery
from mmcrrcd.environment import about_this_run
from mmcrrcd.evaluation.classifier import load_classifier
from mmcrrcd.evaluation.faces import search
from mmcrrcd.files import write_json

RANKS = (1, 10, 20)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Rank the faces of a gallery by the cosine of their embeddings with a probe.')
    parser.add_argument('config', help='config of the training, or of an exported student')
    parser.add_argument('checkpoint', help='file or work directory')
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument('--tinyface', metavar='DIR', help='folder with Testing_Set; its small faces are resized straight to '
                      'the pixels that the network is shown')
    data.add_argument('--orl', metavar='DIR', help='folder with s1/1.pgm to s40/10.pgm')
    parser.add_argument('--gallery-images', type=int, default=1, metavar='N',
                        help='of ORL: the first N images of each person are the gallery, the others probes (default: 1)')
    parser.add_argument('--teacher', action='store_true', help="CHECKPOINT is that of the config's teacher, not of its student")
    add_view_arguments(parser)
    parser.add_argument('--out', '--json', metavar='FILE', help='write the numbers and their conditions')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        if args.out:
            check_output(args.out)
        network = at_resolution(load_classifier(args.config, args.checkpoint, args.teacher, args.image_size), args.resolution)
        if args.tinyface:
            network, (gallery, probe, others) = network.straight(), read_tinyface(args.tinyface)
        else:
            (gallery, probe), others = split_gallery(read_orl(args.orl), args.gallery_images), None
        path = network.path_of(np.empty((0, network.side, network.side, 3)))
        result = search(network, gallery, probe, others, args.flip)
        name = 'TinyFace' if args.tinyface else 'ORL'
        counts = dict(probes=len(probe.ids), gallery=len(gallery.ids), distractors=result.searched - len(gallery.ids))
        numbers = {f'rank-{k}': result.rank(k) for k in RANKS} | {'mAP': result.mean_average_precision}
        print(f'{name}: {counts["probes"]:,} probes, each among {result.searched:,} faces; '
              f'pixels: {path}{", with mirrors" if args.flip else ""}')
        table = Table()
        for label in numbers:
            table.add_column(label, justify='right')
        table.add_row(*(f'{value:.2f} %' for value in numbers.values()))
        Console().print(table)
        if args.out:
            record = dict(**about_this_run(), config=args.config, checkpoint=args.checkpoint,
                          network='teacher' if args.teacher else 'student', data=name, **counts, pixels=path, flip=args.flip,
                          **numbers)
            write_json(args.out, record)


if __name__ == '__main__':
    main()
