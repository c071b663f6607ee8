"""Training runs that take a second: random images of 16×16 px, ResNets of depth 8, three iterations an epoch."""
import uuid
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image

from mmcrrcd.datasets import ImageArrays
from mmcrrcd.engine.runner import Runner
from mmcrrcd.errors import InputError
from mmcrrcd.registry import DATASETS, MODELS

CLASSES, SIZE, IMAGES, BATCH = 4, 16, 24, 8
MEAN, STD = [120.0, 115.0, 110.0], [60.0, 61.0, 62.0]


def random_images(seed: int, n: int = IMAGES) -> tuple[np.ndarray, np.ndarray]:
    """(n, SIZE, SIZE, 3) uint8 RGB images and (n,) labels that their brightness tells."""
    if not isinstance(seed, int):
        raise InputError(f'seed is a whole number, got {seed!r}')
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    images = rng.integers(0, 140, (n, SIZE, SIZE, 3)) + 35 * labels[:, None, None, None]
    return images.clip(0, 255).astype(np.uint8), labels


@DATASETS.register_module()
class TinyImages(ImageArrays):
    def __init__(self, seed: int):
        super().__init__(*random_images(seed), [f'class{i}' for i in range(CLASSES)], 'tiny')


def write_folder(folder: Path, seed: int) -> Path:
    """The same images as PNG files in a folder for each class, with names in the order of the arrays."""
    for i, (image, label) in enumerate(zip(*random_images(seed))):
        path = folder / f'class{label}' / f'{i:03}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def network(widths: tuple[int, ...] = (8, 8, 16, 16)) -> dict:
    return dict(type='mmpretrain.ImageClassifier', neck=dict(type='mmpretrain.GlobalAveragePooling'),
                backbone=dict(type='mmcrrcd.ResNetCIFAR', depth=8, widths=widths),
                head=dict(type='mmpretrain.LinearClsHead', num_classes=CLASSES, in_channels=widths[-1], init_cfg=None))


TEACHER, STUDENT = network((8, 16, 24, 32)), network()


def write_teacher(path: Path) -> Path:
    torch.manual_seed(7)
    torch.save(MODELS.build(TEACHER).state_dict(), path)
    return path


def crrcd(teacher_checkpoint: Path, resolution: int | None = 8, **settings) -> dict:
    settings = dict(num_negatives=12, num_anchors=4, beta=0.5) | settings
    return dict(type='mmcrrcd.CRRCD', student=STUDENT, teacher=TEACHER, teacher_checkpoint=str(teacher_checkpoint),
                input_size=SIZE, **settings,
                data_preprocessor=dict(type='mmcrrcd.PairPreprocessor', mean=MEAN, std=STD, resolution=resolution,
                                       padding=2, flip=0.5))


def in_memory_loader(seed: int, shuffle: bool) -> dict:
    return dict(batch_size=BATCH, num_workers=0, dataset=dict(type='mmcrrcd.TinyImages', seed=seed),
                sampler=dict(type='DefaultSampler', shuffle=shuffle), collate_fn=dict(type='mmcrrcd.whole_batch'))


def pipeline_loader(folder: Path, training: bool, workers: int = 0) -> dict:
    augment = [dict(type='RandomCrop', crop_size=SIZE, padding=2), dict(type='RandomFlip', prob=0.5)] if training else []
    pipeline = [dict(type='LoadImageFromFile'), *augment, dict(type='mmcrrcd.ResolutionPair', resolution=8),
                dict(type='PackInputs', algorithm_keys=('img_low', ))]
    return dict(batch_size=BATCH, num_workers=workers, persistent_workers=False,
                dataset=dict(type='CustomDataset', data_root=str(folder), pipeline=pipeline),
                sampler=dict(type='DefaultSampler', shuffle=training), collate_fn=dict(type='pseudo_collate'),
                worker_init_fn=dict(type='mmcrrcd.seed_worker'))


def config(work_dir: Path, model: dict, epochs: int = 4, **changes) -> Config:
    """A run on the in-memory pipeline with the hooks that every config of this package has."""
    test_loader = in_memory_loader(seed=1, shuffle=False)
    cfg = dict(
        default_scope='mmpretrain', work_dir=str(work_dir), experiment_name=uuid.uuid4().hex, model=model,
        train_dataloader=in_memory_loader(seed=0, shuffle=True), val_dataloader=test_loader, test_dataloader=test_loader,
        val_evaluator=dict(type='mmcrrcd.BatchAccuracy', topk=(1, )), val_cfg=dict(),
        test_evaluator=dict(type='mmcrrcd.BatchAccuracy', topk=(1, )), test_cfg=dict(),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4)),
        param_scheduler=dict(type='MultiStepLR', by_epoch=True, milestones=[3], gamma=0.1),
        default_hooks=dict(runtime_info=dict(type='mmcrrcd.IntervalInfoHook'),
                           checkpoint=dict(type='mmcrrcd.AtomicCheckpointHook', interval=1, max_keep_ckpts=1,
                                           save_best='accuracy/top1', rule='greater')),
        custom_hooks=[dict(type='mmcrrcd.EpochSeedHook'), dict(type='mmcrrcd.PlainCheckpointHook'),
                      dict(type='mmcrrcd.FiniteHook')],
        log_processor=dict(type='LogProcessor', window_size=100, mean_pattern=r'^(time|data_time)$'),
        randomness=dict(seed=5), log_level='ERROR')
    return Config(cfg | changes, format_python_code=False)


def train(cfg: Config, *hooks, resume: bool = False) -> Runner:
    cfg = Config(cfg.to_dict() | dict(resume=resume, experiment_name=uuid.uuid4().hex), format_python_code=False)
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner
