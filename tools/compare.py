"""Compare trainings of your own: ``python tools/compare.py work_dirs/kd work_dirs/crrcd --out comparison.png``."""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse
from pathlib import Path

from mmcrrcd.command_line import one_line_errors, picture_and_numbers
from mmcrrcd.errors import InputError, nearest
from mmcrrcd.files import write_json
from mmcrrcd.visualization.comparison import comparison_table, differing, draw_comparison, read_training
from mmcrrcd.visualization.picture import save_picture


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Compare trainings: accuracy, time, the settings in which they differ, and '
                                     'their curves. Unfinished ones may be among them.')
    parser.add_argument('runs', nargs='+', metavar='RUN', help='work directory of a training')
    parser.add_argument('--metric', help='of the validation (default: the first one in the log)')
    parser.add_argument('--out', default='comparison.png', metavar='FILE', help='picture; the numbers go beside it as .json')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        picture, numbers = picture_and_numbers(args.out)
        alike = len({Path(run).name for run in args.runs}) < len(args.runs)
        trainings = [read_training(run, run if alike else None) for run in args.runs]
        metrics = dict.fromkeys(name for training in trainings for name in training.metrics())
        metric = args.metric or next(iter(metrics), 'accuracy')
        if args.metric and metric not in metrics:
            raise InputError(f'--metric {metric} is in none of the logs, which have {", ".join(metrics) or "no validation"}'
                             + nearest(metric, metrics))
        print(comparison_table(trainings, metric))
        save_picture(draw_comparison(trainings, metric), picture)
        settings = differing([each.settings for each in trainings])
        write_json(numbers, [dict(
            name=each.name, metric=metric, unit=each.unit, values=each.curve(metric), seconds=each.seconds,
            settings={name: values[i] for name, values in settings.items()}) for i, each in enumerate(trainings)])
        print(f'wrote {picture} and {numbers}')


if __name__ == '__main__':
    main()
