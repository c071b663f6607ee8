"""Write the student of a training for mmpretrain, and as ONNX: ``python tools/export_student.py WORK_DIR``.

``--onnx student.onnx`` writes an ONNX file, ``--int8 IMAGES`` an int8 version beside it, see docs/deployment.md;
``--zoo NAME.safetensors --command '...'`` writes an entry of the model zoo instead, see docs/model_zoo.md.
"""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from mmcrrcd.command_line import check_output, one_line_errors
from mmcrrcd.deployment import as_training, export_student, tabulate, write_zoo_student
from mmcrrcd.errors import InputError, printable
from mmcrrcd.inference import in_the_zoo


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Write the student of a training for mmpretrain, and as an ONNX file.')
    parser.add_argument('checkpoint', help='file, or work directory of a training; or a student of the model zoo, by its name')
    parser.add_argument('--config', help='config of the training (default: the one beside the checkpoint)')
    parser.add_argument('--resolution', type=int, metavar='PIXELS',
                        help='of a student trained at several resolutions: the one it will be used at')
    parser.add_argument('--unfinished', action='store_true', help='even if the training has not come to its end')
    parser.add_argument('--overwrite', action='store_true', help='even if there is an export already, which is then replaced')
    parser.add_argument('--out', help='folder for student.py and student.pth (default: student/ beside '
                        'the checkpoint, or the name of a student of the model zoo)')
    parser.add_argument('--onnx', type=Path, metavar='FILE', help='write an ONNX file, too')
    parser.add_argument('--int8', type=Path, metavar='IMAGES',
                        help='and an int8 version, FILE_int8.onnx; IMAGES is a folder of some hundred typical images')
    parser.add_argument('--zoo', metavar='FILE', help='write an entry of the model zoo instead: FILE, which ends in '
                        '.safetensors, and FILE.json beside it')
    parser.add_argument('--command', help='by which the student was trained: it stands in the model zoo')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    def log(line: str) -> None:
        print(printable(line))

    with one_line_errors():
        if bool(args.zoo) != bool(args.command):
            raise InputError('--zoo FILE and --command TEXT go together')
        if args.zoo:
            if other := next((name for name in ('out', 'onnx', 'int8', 'resolution') if getattr(args, name)), None):
                raise InputError(f'--zoo writes an entry of the model zoo and nothing else: leave --{other} out')
            check_output(args.zoo)
            write_zoo_student(args.config, args.checkpoint, args.zoo, args.command, args.unfinished, args.overwrite, log)
            return
        if args.onnx:
            if args.onnx.suffix.lower() != '.onnx':
                raise InputError(f'--onnx ends in .onnx, got {args.onnx}')
            check_output(args.onnx)
        path = in_the_zoo(args.checkpoint)
        from_zoo = path.suffix == '.safetensors' and not args.config
        if from_zoo and args.resolution:
            raise InputError('--resolution needs the training images, which a student of the model zoo does not name')
        with as_training(path) if from_zoo else nullcontext((args.config, path)) as (config, checkpoint):
            out = args.out or (path.stem if from_zoo else None)
            rows = export_student(config, checkpoint, out, args.resolution, args.onnx, args.int8, args.unfinished,
                                  args.overwrite, log)
        if rows:
            Console().print(tabulate(rows))


if __name__ == '__main__':
    main()
