"""Write the student of a training for mmpretrain, and as ONNX: ``python tools/export_student.py WORK_DIR``.

``--onnx student.onnx`` writes an ONNX file, ``--int8 IMAGES`` an int8 version beside it. See docs/deployment.md.
"""
import argparse
from pathlib import Path

from mmengine.config import Config
from rich.console import Console

from mmcrrcd.checkpoint import find_checkpoint
from mmcrrcd.deployment import export_student, tabulate
from mmcrrcd.engine.launch import check_output, one_line_errors
from mmcrrcd.errors import InputError
from mmcrrcd.inference import find_config


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Write the student of a training for mmpretrain, and as an ONNX file.')
    parser.add_argument('checkpoint', help='file, or work directory of a training')
    parser.add_argument('--config', help='config of the training (default: the one beside the checkpoint)')
    parser.add_argument('--resolution', type=int, metavar='PIXELS',
                        help='of a student trained at several resolutions: the one it will be used at')
    parser.add_argument('--out', help='folder for student.py and student.pth (default: student/ beside the checkpoint)')
    parser.add_argument('--onnx', type=Path, metavar='FILE', help='write an ONNX file, too')
    parser.add_argument('--int8', type=Path, metavar='IMAGES',
                        help='and an int8 version, FILE_int8.onnx; IMAGES is a folder of some hundred typical images')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        checkpoint = find_checkpoint(args.checkpoint)
        config = Path(args.config) if args.config else find_config(checkpoint.parent)
        if not config.is_file():
            raise FileNotFoundError(f'there is no config {config}')
        if args.onnx:
            if args.onnx.suffix.lower() != '.onnx':
                raise InputError(f'--onnx ends in .onnx, got {args.onnx}')
            check_output(args.onnx)
        out = Path(args.out) if args.out else checkpoint.parent / 'student'
        rows = export_student(Config.fromfile(config), checkpoint, out, args.resolution, args.onnx, args.int8)
        if rows:
            Console().print(tabulate(rows))


if __name__ == '__main__':
    main()
