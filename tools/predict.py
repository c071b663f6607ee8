"""Classify images by a trained student: ``python tools/predict.py IMAGE_OR_FOLDER STUDENT``, or ``--zoo NAME``.

The images may be natively small; no image of high resolution is needed. Each is resized to what the student sees, with the
interpolation of its training; by a student trained at several resolutions, to the one of them that is nearest to the image's
own. A large image goes through the transforms of the training's tests first.
"""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from mmcrrcd import load_student, zoo
from mmcrrcd.command_line import check_output, one_line_errors
from mmcrrcd.errors import InputError, printable
from mmcrrcd.files import write_json
from mmcrrcd.inference import Prediction, find_images


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Classify images by a trained student.')
    parser.add_argument('images', metavar='IMAGE_OR_FOLDER', help='a file, or a folder with images in it or below')
    parser.add_argument('student', metavar='[CONFIG] STUDENT', nargs='*',
                        help='work directory or checkpoint of a training, folder of an exported student, or ONNX file; before '
                        'it a config to take in place of the one in the folder')
    parser.add_argument('--zoo', metavar='NAME', help='a student of the model zoo (docs/model_zoo.md), in place of STUDENT')
    parser.add_argument('--json', metavar='FILE', help='write the answers to this file instead of a table')
    parser.add_argument('--topk', type=int, default=5, metavar='K', help='classes to name for each image (default: 5)')
    parser.add_argument('--batch-size', type=int, default=64, metavar='N', help='images at once (default: 64)')
    parser.add_argument('--resolution', type=int, metavar='PIXELS',
                        help="side of what the student sees (default: as in its training's tests; of several in its "
                             "training the nearest to the image's own)")
    args = parser.parse_args(argv)
    if not 1 <= len(args.student) + 2 * bool(args.zoo) <= 2:
        parser.error(f'expected [CONFIG] STUDENT or --zoo NAME, got {" ".join(args.student) or "neither"}')
    return args


def tabulate(answers: list[dict], images: Path) -> Table:
    """A row for each image, which is named by its place in the folder ``images``."""
    table = Table()
    table.add_column('image', overflow='fold')
    table.add_column('class', overflow='fold')
    table.add_column('probability', justify='right')
    if any(len(answer['classes']) > 1 for answer in answers):
        table.add_column('next', overflow='fold')
    for answer in answers:
        first, *others = answer['classes']
        file = str(Path(answer['file']).relative_to(images)) if images.is_dir() else answer['file']
        row = [file, first['name'], f'{100 * first["probability"]:.1f} %']
        row += [', '.join(f'{each["name"]} {100 * each["probability"]:.1f} %' for each in others)] if others else []
        table.add_row(*(Text(printable(entry)) for entry in row))
    return table


def best(prediction: Prediction, names: tuple[str, ...], k: int) -> dict:
    """One image's answer for the table and the JSON file."""
    labels = prediction.probabilities.argsort(kind='stable')[::-1][:k].tolist()
    return dict(file=prediction.file, pixels=list(prediction.pixels), classes=[
        dict(name=names[label], label=label, probability=float(prediction.probabilities[label])) for label in labels])


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        for name in ('topk', 'batch_size', 'resolution'):
            if getattr(args, name) is not None and getattr(args, name) < 1:
                raise InputError(f'--{name.replace("_", "-")} is at least 1, got {getattr(args, name)}')
        if args.json:
            check_output(args.json)
        files = find_images(args.images)
        *config, path = [zoo.find(args.zoo)] if args.zoo else args.student
        student = load_student(path, *config, resolution=args.resolution)
        answers, unreadable = [], []
        batches = [files[i:i + args.batch_size] for i in range(0, len(files), args.batch_size)]
        for batch in track(batches, 'Classifying', console=Console(stderr=True), disable=len(batches) == 1):
            predictions = student.predict(batch, args.batch_size, unreadable)
            answers += [best(prediction, student.classes, args.topk) for prediction in predictions]
        for each in unreadable:
            print(printable(f'skipped {each["file"]}: {each["reason"]}'), file=sys.stderr)
        if not answers:
            raise InputError(f'no image of {args.images} can be read')
        if args.json:
            result = dict(config=config[0] if config else None, checkpoint=student.source, resized_to=str(student),
                          images=answers, unreadable=unreadable)
            write_json(args.json, result)
        else:
            Console().print(tabulate(answers, Path(args.images)))
        print(f'{len(answers)} images classified, {len(unreadable)} unreadable; each resized to {student}')


if __name__ == '__main__':
    main()
