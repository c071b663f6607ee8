"""How fast a teacher cache is built, beside the teacher's bare forward pass, and what it takes on disk.

    python -m benchmarks.cache_time

In each round, turn by turn: the forward pass alone, on one fixed batch of each of several sizes, of which the fastest counts;
and the building of some blocks, with reading, cropping, checking and writing. The teacher has random weights.
"""
import argparse
import contextlib
import shutil
import time
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from rich.progress import track

from mmcrrcd.engine.teacher_cache import Source
from mmcrrcd.environment import about_this_run
from mmcrrcd.models.teachers.cache import BLOCK, CacheWriter, size_in_bytes
from mmcrrcd.visualization.markdown import conditions, markdown_table

from .common import KEPT, keep

SIZES = (64, 128, 256, 512)


def seconds(function, *inputs) -> float:
    start = time.perf_counter()
    function(*inputs)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def build_blocks(source: Source, writer: CacheWriter, blocks: range) -> None:
    for block, output in zip(blocks, source.outputs([source.numbers_of(block) for block in blocks])):
        writer.write(block, output)


def measure(args: argparse.Namespace) -> dict:
    cfg = Config.fromfile(args.config)
    cfg.model.teacher_checkpoint, cfg.train_dataloader.dataset.data_root = None, args.data_root
    if args.amp:
        cfg.optim_wrapper.type = 'mmcrrcd.BF16OptimWrapper'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        source = Source(cfg, args.views, 0, with_teacher=True)
    shape, folder = source.shape(), args.work_dir / 'answers'
    shutil.rmtree(f'{folder}.part', ignore_errors=True)
    writer = CacheWriter(folder, source.about, shape)
    writer.prepare()
    writer.open()
    batches = [torch.randn(size, 3, 32, 32, device=source.device).to(memory_format=torch.channels_last) for size in SIZES]
    precision = torch.autocast(source.device.type, torch.bfloat16) if args.amp else contextlib.nullcontext()
    rates = dict(bare=[], building=[])
    for i in track(range(-1, args.rounds), 'rounds'):                    # the first one warms up
        with precision, torch.no_grad():
            bare = max(len(batch) / seconds(source.model.forward_teacher, batch) for batch in batches)
        blocks = range((i + 1) * args.blocks, (i + 2) * args.blocks)
        building = args.blocks * BLOCK / seconds(build_blocks, source, writer, blocks)
        if i >= 0:
            rates['bare'].append(bare)
            rates['building'].append(building)
    writer.close()
    shutil.rmtree(f'{folder}.part')
    return dict(**about_this_run(), config=args.config, views=args.views, megabytes=size_in_bytes(shape) / 1e6,
                precision='bfloat16' if args.amp else 'float32', blocks=args.blocks, rates=rates)


def table(result: dict) -> str:
    bare, building = result['rates']['bare'], result['rates']['building']
    shares = sorted(ours / theirs for ours, theirs in zip(building, bare))
    rows = [["the teacher's forward pass, at its best batch size, images/s", f'{median(bare):.0f}'],
            ['building the cache, images/s', f'{median(building):.0f}'],
            ['building over the forward pass', f'{median(shares):.2f} ({shares[0]:.2f} – {shares[-1]:.2f})'],
            [f'on disk, {result["views"]} views, MB', f'{result["megabytes"]:.0f}']]
    return '\n'.join([markdown_table(['', ''], rows), '',
                      f'{Path(result["config"]).stem}, {result["precision"]}; n = {len(bare)} rounds of {result["blocks"]} '
                      f'blocks of {BLOCK} images. {conditions(result)}'])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default='configs/crrcd/resnet56_resnet20_cifar100.py')
    parser.add_argument('--views', type=int, default=16)
    parser.add_argument('--data-root', default='data/cifar100')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--blocks', type=int, default=2)
    parser.add_argument('--amp', action='store_true')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/cache_time'))
    parser.add_argument('--json', type=Path, default=KEPT / 'cache_time.json')
    args = parser.parse_args()
    result = measure(args)
    keep(result, args.json, table(result))


if __name__ == '__main__':
    main()
