"""Classify images by a trained student: ``python tools/predict.py IMAGE_OR_FOLDER CONFIG CHECKPOINT``.

The images may be natively small; no image of high resolution is needed. Each is resized, whatever its size and shape, straight
to what the student sees, with the interpolation of its training; by a student trained at several resolutions, to the one of
them that is nearest to the image's own.
"""
import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.device import get_device
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text
from torch import Tensor

from mmcrrcd.checkpoint import find_checkpoint, safe_load
from mmcrrcd.datasets import downsample
from mmcrrcd.datasets.read_image import ImageError, read_image
from mmcrrcd.engine.launch import check_output, one_line_errors
from mmcrrcd.errors import InputError, printable
from mmcrrcd.evaluation.embeddings import Classifier, Size, load_classifier
from mmcrrcd.models import PairPreprocessor
from mmcrrcd.models.networks import extract

SUFFIXES = {'.bmp', '.gif', '.jpeg', '.jpg', '.pbm', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp'}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Classify images by a trained student.')
    parser.add_argument('images', metavar='IMAGE_OR_FOLDER', help='a file, or a folder with images in it or below')
    parser.add_argument('config', metavar='CONFIG', help='config of the training, or of an exported student')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='file, or folder of a training or of an exported student')
    parser.add_argument('--json', metavar='FILE', help='write the answers to this file instead of a table')
    parser.add_argument('--topk', type=int, default=5, metavar='K', help='classes to name for each image (default: 5)')
    parser.add_argument('--batch-size', type=int, default=64, metavar='N', help='images at once (default: 64)')
    parser.add_argument('--resolution', type=int, metavar='PIXELS',
                        help="side of what the student sees (default: as in its training's tests; of several in its "
                             "training the nearest to the image's own)")
    return parser.parse_args()


def find_images(path: Path) -> list[Path]:
    """``path`` itself, or the images in the folder, sorted."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f'there is no image or folder {path}')
    files = sorted(file for file in path.rglob('*') if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise InputError(f'no image in {path} (looked for {", ".join(sorted(SUFFIXES))})')
    return files


def area(size: Size) -> int:
    """Pixels of a resolution: a side, or height and width."""
    return size ** 2 if isinstance(size, int) else size[0] * size[1]


class Student:
    """A classifier on images of any size."""

    def __init__(self, classifier: Classifier, resolution: int | None):
        settings = classifier.downsampling
        self.network, self.normalize = classifier.network, PairPreprocessor(**classifier.normalization).to(get_device())
        self.how = {key: settings[key] for key in ('interpolation', 'antialias') if key in settings}
        self.sizes = [resolution] if resolution else list(classifier.resolutions)      # of these the nearest to the image's own
        self.sizes = self.sizes or [settings.get('resolution') or classifier.side]
        self.upsampled = classifier.side if settings.get('upsample') else None

    def __str__(self) -> str:
        sizes = [f'{size} x {size}' if isinstance(size, int) else f'{size[0]} x {size[1]}' for size in self.sizes]
        nearest = 'the nearest of ' if len(sizes) > 1 else ''
        upsampled = f' pixels, then to {self.upsampled} x {self.upsampled}' if self.upsampled else ''
        interpolation = self.how.get('interpolation', 'bilinear')
        antialias = ', antialiased' if self.how.get('antialias', True) and interpolation in ('bilinear', 'bicubic') else ''
        return f'{nearest}{", ".join(sizes)}{upsampled} pixels ({interpolation}{antialias})'

    def resize(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) of any size -> (1, 3, h, w), what the student sees."""
        own = image.shape[2] * image.shape[3]
        image = downsample(image, min(self.sizes, key=lambda size: abs(math.log(area(size) / own))), **self.how)
        return downsample(image, self.upsampled, **self.how) if self.upsampled else image

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities (N, classes) of resized images."""
        seen = self.normalize(dict(inputs=images))['inputs'].low
        try:
            return extract(self.network, seen).logits.softmax(1)
        except (RuntimeError, ValueError) as error:
            height, width = images.shape[2:]
            raise InputError(f'the student cannot take images of {height} x {width} pixels: '
                             f'{str(error).splitlines()[0]}') from error


def classify(student: Student, files: list[Path], batch_size: int,
             unreadable: list[dict]) -> Iterator[tuple[Path, Tensor, list[int]]]:
    """Each file with its probabilities (classes,), and height and width of what the student saw of it; those that cannot be
    read go to ``unreadable`` instead.
    """
    batches = [files[i:i + batch_size] for i in range(0, len(files), batch_size)]
    for batch in track(batches, 'Classifying', console=Console(stderr=True), disable=len(batches) == 1):
        images, answers = {}, {}
        for path in batch:
            try:
                images[path] = student.resize(torch.tensor(read_image(path)).permute(2, 0, 1)[None])
            except ImageError as error:
                unreadable.append(dict(file=str(path), reason=error.reason))
        for shape in dict.fromkeys(image.shape for image in images.values()):
            same = {path: image for path, image in images.items() if image.shape == shape}
            answers |= zip(same, student(torch.cat(list(same.values())).to(get_device())).cpu())
        for path, image in images.items():
            yield path, answers[path], list(image.shape[2:])


def class_names(checkpoint: Path, number: int) -> list[str]:
    """Those of the training's data, where the checkpoint tells them, otherwise the numbers of the classes."""
    meta = safe_load(checkpoint).get('meta') or {}
    names = (meta.get('dataset_meta') or {}).get('classes') or ()
    return list(names) if len(names) == number else [str(label) for label in range(number)]


def tabulate(answers: list[dict]) -> Table:
    table = Table()
    table.add_column('image', overflow='fold')
    table.add_column('class', overflow='fold')
    table.add_column('probability', justify='right')
    if any(len(answer['classes']) > 1 for answer in answers):
        table.add_column('next', overflow='fold')
    for answer in answers:
        first, *others = answer['classes']
        row = [answer['file'], first['name'], f'{100 * first["probability"]:.1f} %']
        row += [', '.join(f'{each["name"]} {100 * each["probability"]:.1f} %' for each in others)] if others else []
        table.add_row(*(Text(printable(entry)) for entry in row))
    return table


def main() -> None:
    args = parse_args()
    with one_line_errors():
        for name in ('topk', 'batch_size', 'resolution'):
            if getattr(args, name) is not None and getattr(args, name) < 1:
                raise InputError(f'--{name.replace("_", "-")} is at least 1, got {getattr(args, name)}')
        if args.json:
            check_output(args.json)
        files = find_images(Path(args.images))
        exported = Path(args.checkpoint, 'student.pth')
        checkpoint = exported if exported.is_file() else find_checkpoint(args.checkpoint)
        weights = exported if exported.is_file() else args.checkpoint       # of a folder it is asked whether it is finished
        student = Student(load_classifier(args.config, weights), args.resolution)
        answers, unreadable, names = [], [], None
        for path, probabilities, pixels in classify(student, files, args.batch_size, unreadable):
            names = names or class_names(checkpoint, len(probabilities))
            best = probabilities.topk(min(args.topk, len(names)))
            answers.append(dict(file=str(path), pixels=pixels, classes=[
                dict(name=names[label], label=label, probability=probability)
                for probability, label in zip(*map(Tensor.tolist, best))]))
        for each in unreadable:
            print(printable(f'skipped {each["file"]}: {each["reason"]}'), file=sys.stderr)
        if not answers:
            raise InputError(f'no image of {args.images} can be read')
        if args.json:
            result = dict(config=args.config, checkpoint=str(checkpoint), resized_to=str(student), images=answers,
                          unreadable=unreadable)
            Path(args.json).write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
        else:
            Console().print(tabulate(answers))
        print(f'{len(answers)} images classified, {len(unreadable)} unreadable; each resized to {student}')


if __name__ == '__main__':
    main()
