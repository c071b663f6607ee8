"""How fast a teacher cache is built, beside the teacher's bare forward pass, and what it takes on disk.

    python -m benchmarks.cache_time

In each round, turn by turn: the forward pass alone, on one fixed batch of each of several sizes, of which the fastest counts;
and the building of some blocks, with reading, cropping, checking and writing. The teacher has random weights,
or those of --checkpoint.
"""
import argparse
import itertools
import shutil
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmcrrcd.engine.build_cache import Source
from mmcrrcd.engine.launch import keep_memory
from mmcrrcd.models.teachers.cache import BLOCK, CacheWriter, size_in_bytes

from .common import benchmark, in_turns, page, seconds, turns_rows

FOLDER = Path('work_dirs/cache_time/answers')
SIZES = (64, 128, 256, 512)
FORWARD = "the teacher's forward pass, at its best batch size"


def measure(args: argparse.Namespace) -> dict:
    cfg = Config.fromfile(args.config)
    cfg.model.teacher_checkpoint, cfg.train_dataloader.dataset.data_root = args.checkpoint or None, args.data_root
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

    def forward() -> float:
        with torch.no_grad():
            return max(len(batch) / seconds(partial(source.model.forward_teacher, batch)) for batch in batches)

    keep_memory()                                        # as the tools do
    for warm_up in (forward, build_blocks):
        warm_up()
    rates = in_turns({FORWARD: forward,
                      'building the cache': lambda: args.blocks * BLOCK / seconds(build_blocks)}, args.rounds)
    writer.close()
    shutil.rmtree(f'{FOLDER}.part')
    return dict(config=args.config, views=args.views, megabytes=size_in_bytes(shape) / 1e6, blocks=args.blocks, rates=rates)


def table(result: dict) -> str:
    rates = result['rates']
    return page(result, ['', 'images/s: median (range)', 'over the forward pass'],
                turns_rows(rates, 0, dict.fromkeys(rates, FORWARD)),
                f'{Path(result["config"]).stem}, float32; n = {len(rates[FORWARD])} rounds of {result["blocks"]} blocks of '
                f'{BLOCK} images. {result["views"]} views take {result["megabytes"]:.0f} MB on disk.')


main = benchmark('cache_time', __doc__, measure, table, views=(16, 'of each image'), rounds=(5, 'turns of each'),
                 blocks=(2, 'built in a round'), config=('configs/crrcd/resnet56_resnet20_cifar100.py', 'of the teacher'),
                 checkpoint=('', 'of the teacher, where random weights give answers beyond float16'))

if __name__ == '__main__':
    main()
