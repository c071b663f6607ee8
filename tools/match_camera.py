"""Say which downsampling comes nearest to a camera: ``python tools/match_camera.py CONFIG CAMERA_IMAGES``.

CAMERA_IMAGES are natively small images, of any such things as the training's; no image has to be seen by both. The settings
that are printed make the student's images from the large ones.
"""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.table import Table

from mmcrrcd.command_line import add_options, one_line_errors, read_with_options
from mmcrrcd.datasets import ImageArrays, StudentView
from mmcrrcd.datasets.read_image import read_image
from mmcrrcd.datasets.transforms.student_view import told
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.camera import Match, match_camera
from mmcrrcd.evaluation.data import evenly, own_images
from mmcrrcd.inference import find_images
from mmcrrcd.registry import DATASETS

IMAGES, SHOWN, FEW = 400, 5, 50


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Say which downsampling comes nearest to the images of a camera.')
    parser.add_argument('config', help='config of a training, for its images and its resolution')
    parser.add_argument('images', metavar='CAMERA_IMAGES', help='a folder of natively small images')
    add_options(parser, 'data_root=my_images')
    return parser.parse_args(argv)


def training_images(cfg: Config) -> ImageArrays:
    """Some of the training's images, as the teacher would see them in a test."""
    if 'pipeline' in cfg.train_dataloader.dataset:
        return own_images(cfg, IMAGES)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(cfg.train_dataloader.dataset)


def camera_images(folder: str, view: StudentView) -> np.ndarray:
    """(N, h, w, 3) uint8, what a student sees of images that are natively small.

    Raises:
        InputError: most of them are not.
    """
    files = find_images(folder)
    images = [np.array(read_image(files[i])) for i in evenly(len(files), IMAGES)]
    large = [image for image in images if not view.natively_small(image.shape[:2])]
    if 2 * len(large) > len(images):
        height, width = large[0].shape[:2]
        raise InputError(f'the images in {folder} are not natively small, as one of {height}×{width} px: name those of the '
                         f'camera, of about {told(view.resolution)}')
    return np.stack([view(dict(img=image))['img'] for image in images if view.natively_small(image.shape[:2])])


def options_of(match: Match) -> str:
    """What to add to the command of the training."""
    how = dict(antialias=True, blur=0.0, noise=0.0, jpeg=None) | match.how
    return ' '.join(f'model.data_preprocessor.{name}={value}' for name, value in how.items())


def tabulate(matches: list[Match]) -> Table:
    table = Table('interpolation', 'antialias')
    for heading in ('blur', 'noise', 'jpeg', 'distance'):
        table.add_column(heading, justify='right')
    for distance, how in matches:
        settings = (how.get(name, '–') for name in ('blur', 'noise', 'jpeg'))
        table.add_row(how['interpolation'], str(how.get('antialias', '–')), *map(str, settings), f'{distance:.3f}')
    return table


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        cfg = read_with_options(args.config, args.cfg_options, 'model', 'train_dataloader')
        resolution = (cfg.model.get('data_preprocessor') or {}).get('resolution')
        if not resolution:
            raise InputError(f'{args.config} has no model.data_preprocessor.resolution, to which images are downsampled')
        data = training_images(cfg)
        images = data.__getitems__(evenly(len(data), IMAGES))['inputs'].cpu()
        small = camera_images(args.images, StudentView(resolution, tuple(images.shape[2:])))
        matches = match_camera(images, small, resolution)
        Console().print(tabulate(matches[:SHOWN]))
        if len(small) < FEW:
            print(f'{len(small)} images of the camera are few: with {FEW} or more the answer is surer')
        print(f'nearest to the {len(small)} images in {args.images}: --cfg-options {options_of(matches[0])}')


if __name__ == '__main__':
    main()
