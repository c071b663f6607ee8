"""Test the student of a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``; a work directory is its last checkpoint."""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process

from mmcrrcd.command_line import add_options, check_output, one_line_errors, read_with_options
from mmcrrcd.engine.own_data import default_work_dir
from mmcrrcd.engine.student_test import test_student
from mmcrrcd.errors import InputError
from mmcrrcd.files import write_json


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test the student of a checkpoint.')
    parser.add_argument('config', help='config of the training')
    parser.add_argument('checkpoint', help='file or work directory: of a training, of an exported student, of mmpretrain; or '
                        'an ONNX file of tools/export_student.py')
    parser.add_argument('--work-dir', help="where the log goes (default: test/ in the folder of the training)")
    parser.add_argument('--out', metavar='FILE', help='write the metrics, or the predictions, to this file')
    parser.add_argument('--out-item', choices=['metrics', 'pred'], default='metrics',
                        help='what goes to FILE: the metrics (.json), or all predictions (.json or .npz)')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast, on CPU and GPU')
    add_options(parser, 'model.data_preprocessor.resolution=16', launcher=True)
    return parser.parse_args(argv)


def plain(value):
    """A metric as a number, or as lists of numbers where it is one for each class, or a confusion matrix."""
    value = value.tolist() if hasattr(value, 'tolist') else value
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def load_config(args: argparse.Namespace) -> Config:
    """The config with what the command line says."""
    cfg = read_with_options(args.config, args.cfg_options, 'model')
    cfg.work_dir = args.work_dir or str(default_work_dir(cfg, args.config) / 'test')
    if Path(cfg.work_dir, 'last_checkpoint').exists():
        raise InputError(f'{cfg.work_dir} is the folder of a training, whose config the test would replace: name another '
                         '--work-dir')
    return cfg


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        endings = ('.json', ) if args.out_item == 'metrics' else ('.json', '.npz')
        if args.out and Path(args.out).suffix not in endings:
            raise InputError(f'--out ends in {" or ".join(endings)} for --out-item {args.out_item}, got {args.out}')
        if args.out_item == 'pred' and not args.out:
            raise InputError('--out-item pred needs a file: --out FILE')
        if args.out:
            check_output(args.out)
        metrics = test_student(load_config(args), args.checkpoint, args.launcher, args.amp,
                               args.out if args.out_item == 'pred' else None)
        if is_main_process():
            metrics = {name: plain(value) for name, value in metrics.items()}
            print(*(f'{name} {value:.2f}' for name, value in metrics.items() if not isinstance(value, list)))
            for name, value in metrics.items():
                if isinstance(value, list):              # of each class, or for each pair of classes
                    print(f'{name}:')
                    for row in value if value and isinstance(value[0], list) else [value]:
                        print(' ', *(f'{each:.2f}' if isinstance(each, float) else each for each in row))
            if args.out and args.out_item == 'metrics':
                write_json(args.out, metrics)


if __name__ == '__main__':
    main()
