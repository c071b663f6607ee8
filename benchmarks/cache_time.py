"""How fast a teacher cache is built, beside the teacher's bare forward pass, and what it takes on disk.

    python -m benchmarks.cache_time

In each round, turn by turn: the forward pass alone, on one fixed batch of each of several sizes, of which the fastest counts;
and the building of some blocks, with reading, cropping, checking and writing. The teacher has random weights.
"""
import argparse
import itertools
import shutil
from functools import partial
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmcrrcd.engine.teacher_cache import Source
from mmcrrcd.models.teachers.cache import BLOCK, CacheWriter, size_in_bytes

from .common import carry_out, in_turns, page, parser_of, ratio, seconds

FOLDER = Path('work_dirs/cache_time/answers')
SIZES = (64, 128, 256, 512)


def measure(args: argparse.Namespace) -> dict:
    cfg = Config.fromfile(args.config)
    cfg.model.teacher_checkpoint, cfg.train_dataloader.dataset.data_root = None, args.data_root
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        source = Source(cfg, args.views, 0, with_teacher=True)
    shape = source.shape()
    shutil.rmtree(f'{FOLDER}.part', ignore_errors=True)
    writer = CacheWriter(FOLDER, source.about, shape)
    writer.prepare()
    writer.open()
    batches = [torch.randn(size, 3, 32, 32, device=source.device).to(memory_format=torch.channels_last) for size in SIZES]
    numbers = itertools.count()

    def build_blocks() -> None:
        blocks = list(itertools.islice(numbers, args.blocks))
        for block, output in zip(blocks, source.outputs([source.numbers_of(block) for block in blocks])):
            writer.write(block, output)

    def bare() -> float:
        with torch.no_grad():
            return max(len(batch) / seconds(partial(source.model.forward_teacher, batch)) for batch in batches)

    for warm_up in (bare, build_blocks):
        warm_up()
    rates = in_turns(dict(bare=bare, building=lambda: args.blocks * BLOCK / seconds(build_blocks)), args.rounds)
    writer.close()
    shutil.rmtree(f'{FOLDER}.part')
    return dict(config=args.config, views=args.views, megabytes=size_in_bytes(shape) / 1e6, blocks=args.blocks, rates=rates)


def table(result: dict) -> str:
    rates = result['rates']
    rows = [["the teacher's forward pass, at its best batch size, images/s", f'{median(rates["bare"]):.0f}'],
            ['building the cache, images/s', f'{median(rates["building"]):.0f}'],
            ['building over the forward pass', ratio(rates, 'building', 'bare')],
            [f'on disk, {result["views"]} views, MB', f'{result["megabytes"]:.0f}']]
    return page(result, ['', ''], rows, f'{Path(result["config"]).stem}, float32; n = {len(rates["bare"])} '
                f'rounds of {result["blocks"]} blocks of {BLOCK} images.')


def main(argv: list[str] | None = None) -> None:
    parser = parser_of(__doc__, 'cache_time', 'resnet56_resnet20_cifar100', views=(16, 'of each image'),
                       rounds=(5, 'turns of each'), blocks=(2, 'built in a round'))
    carry_out(parser.parse_args(argv), measure, table)


if __name__ == '__main__':
    main()
