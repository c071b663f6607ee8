"""Compute a teacher's answers to the training images once: ``python tools/cache_teacher.py CONFIG --views 16``.

Trainings of CONFIG, and of others with the same teacher, data and augmentation, read them with ``--cache-teacher``. Killed, the
same command goes on where it was.
"""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse

from mmengine.registry import DefaultScope

from mmcrrcd.command_line import add_options, one_line_errors, read_with_options
from mmcrrcd.engine.build_cache import VIEWS, find_or_build, views_of_text
from mmcrrcd.engine.launch import prepare_processes
from mmcrrcd.engine.settings import check_settings
from mmcrrcd.models.teachers.cache import size_in_bytes


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compute a teacher's answers to the training images once.")
    parser.add_argument('config', help='config of a training with this teacher')
    parser.add_argument('--views', type=views_of_text, help='augmentations of each image, or all; '
                        f'default: what the config says, or {VIEWS}')
    parser.add_argument('--folder', help='where they go (default: a folder of work_dirs/teacher_cache)')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast, for trainings with --amp')
    add_options(parser, launcher=True)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        cfg = read_with_options(args.config, args.cfg_options, 'model', 'train_dataloader')
        check_settings(cfg)
        if args.amp:
            cfg.optim_wrapper.type = 'mmcrrcd.BF16OptimWrapper'
        given = {name: getattr(args, name) for name in ('views', 'folder') if getattr(args, name) is not None}
        cfg.model.teacher_cache = {**(cfg.model.get('teacher_cache') or {}), **given}
        prepare_processes(cfg, args.launcher)
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            cache = find_or_build(cfg)
        print(f'{cache.folder}: {cache.num_images} images, views: {cache.views}, {size_in_bytes(cache.shape) / 1e6:.0f} MB')


if __name__ == '__main__':
    main()
