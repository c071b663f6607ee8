"""Are two faces of one person? LFW's protocol, ten folds, Table V of the paper.

``python tools/verify_faces.py CONFIG CHECKPOINT --pairs data/lfw/pairs.txt --images data/lfw/lfw --resolution 16``; a set of
InsightFace (``lfw.bin``, ``cfp_fp.bin``, ``agedb_30.bin``) by ``--bin FILE`` instead.
"""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse

from _faces import add_view_arguments, add_pair_arguments, at_resolution, read_pairs
from rich.console import Console
from rich.table import Table

from mmcrrcd.command_line import check_output, one_line_errors
from mmcrrcd.environment import about_this_run
from mmcrrcd.evaluation.classifier import load_classifier
from mmcrrcd.evaluation.faces import similarities
from mmcrrcd.evaluation.verification import verify
from mmcrrcd.files import write_json

FARS = (1e-3, 1e-4)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Verify pairs of faces by the cosine of their embeddings.')
    parser.add_argument('config', help='config of the training, or of an exported student')
    parser.add_argument('checkpoint', help='file or work directory')
    add_pair_arguments(parser)
    parser.add_argument('--teacher', action='store_true', help="CHECKPOINT is that of the config's teacher, not of its student")
    add_view_arguments(parser)
    parser.add_argument('--out', '--json', metavar='FILE', help='write the numbers and their conditions')
    return parser.parse_args(argv)


def in_words(percent: float | None) -> str:
    return 'not measurable' if percent is None else f'{percent:.2f} %'


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        if args.out:
            check_output(args.out)
        network = at_resolution(load_classifier(args.config, args.checkpoint, args.teacher, args.image_size), args.resolution)
        pairs = read_pairs(args, network.side)
        path = network.path_of(pairs.images)
        result = verify(similarities(network, pairs, args.flip), pairs.same, pairs.fold)
        roc, folds = result.roc, len(result.accuracies)
        eer, tars = 100 * roc.eer(), {f'{far:g}': roc.tar_at(far) for far in FARS}
        tars = {far: None if tar is None else 100 * tar for far, tar in tars.items()}
        print(f'{pairs.name}: {len(pairs):,} pairs in {folds} folds; pixels: {path}{", with mirrors" if args.flip else ""}')
        table = Table('', show_header=False)
        table.add_column(justify='right')
        table.add_row('accuracy, mean of the folds ± standard error', f'{result.accuracy:.2f} ± {result.standard_error:.2f} %')
        table.add_row('area under the ROC', f'{roc.auc():.4f}')
        table.add_row('equal error rate', in_words(eer))
        for far, tar in tars.items():
            table.add_row(f'true accepts at a false accept rate of {far}', in_words(tar))
        Console().print(table)
        if args.out:
            numbers = dict(**about_this_run(), config=args.config, checkpoint=args.checkpoint,
                           network='teacher' if args.teacher else 'student', data=pairs.name, images=len(pairs.images),
                           positive_pairs=int(pairs.same.sum()), negative_pairs=int((~pairs.same).sum()), pixels=path,
                           flip=args.flip, folds=sorted(set(pairs.fold.tolist())), accuracies=result.accuracies,
                           thresholds=result.thresholds, accuracy=result.accuracy, standard_error=result.standard_error,
                           auc=roc.auc(), eer=eer, tar_at_far=tars)
            write_json(args.out, numbers)


if __name__ == '__main__':
    main()
