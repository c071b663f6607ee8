"""What do batch norm's statistics cost a student for every resolution? They are of all resolutions mixed.

    python benchmarks/batch_norm.py CONFIG CHECKPOINT       # of a training with train_resolutions

Its test accuracy at each of ``--resolutions``, with the statistics that its training has left, and with those of that
resolution alone, as ``tools/export_student.py --resolution`` takes them. Writes ``benchmarks/results/batch_norm.json`` and
prints its table.
"""
import argparse
import json

from environment import KEPT, about_this_run, conditions
from mmengine.config import Config

from mmcrrcd.engine.launch import check_output, one_line_errors
from mmcrrcd.evaluation.batch_norm import fit_batch_norms, training_images
from mmcrrcd.evaluation.embeddings import accuracy, load_classifier, own_images

RESULT = KEPT / 'batch_norm.json'


def run(args: argparse.Namespace) -> dict:
    cfg, student = Config.fromfile(args.config), load_classifier(args.config, args.checkpoint)
    train, test = training_images(cfg), own_images(args.config)
    as_trained = {name: value.clone() for name, value in student.network.state_dict().items()}
    rows = []
    for resolution in args.resolutions:
        at = student.at(resolution)
        row = dict(resolution=resolution, mixed=accuracy(at, test, f'{resolution} pixels'))
        fit_batch_norms(student.network, cfg, train, resolution)
        rows.append(row | dict(own=accuracy(at, test, f'{resolution} pixels, their own statistics')))
        student.network.load_state_dict(as_trained)
    return dict(**about_this_run(), rows=rows)


def table(result: dict) -> str:
    head = ' | '.join(str(row['resolution']) for row in result['rows'])
    lines = [f'| test accuracy (%) at pixels | {head} |', '|---' * (len(result['rows']) + 1) + '|']
    for title, key in (('statistics of all resolutions mixed, as trained', 'mixed'), ('statistics of this resolution', 'own')):
        lines.append(f'| {title} | ' + ' | '.join(f'{row[key]:.1f}' for row in result['rows']) + ' |')
    return '\n'.join([*lines, '', conditions(result)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--resolutions', type=int, nargs='+', default=[8, 12, 16, 20, 24, 28, 32], metavar='PIXELS')
    args = parser.parse_args()
    with one_line_errors():
        check_output(RESULT)
        result = run(args)
    RESULT.write_text(json.dumps(result, indent=1) + '\n')
    print(table(result))


if __name__ == '__main__':
    main()
