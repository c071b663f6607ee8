"""What every run shares: log, checkpoints, seed."""
from mmengine.hooks import DistSamplerSeedHook, IterTimerHook, LoggerHook, ParamSchedulerHook
from mmengine.runner import LogProcessor
from mmengine.visualization import LocalVisBackend, Visualizer

from mmcrrcd.engine import (AtomicCheckpointHook, CheckInputHook, CriticWatchHook, EpochSeedHook, FiniteHook,
                            IntervalInfoHook, PlainCheckpointHook, TeacherTestHook)

default_scope = 'mmpretrain'
default_hooks = dict(
    runtime_info=dict(type=IntervalInfoHook),
    timer=dict(type=IterTimerHook),
    sampler_seed=dict(type=DistSamplerSeedHook),
    logger=dict(type=LoggerHook, interval=100),
    param_scheduler=dict(type=ParamSchedulerHook),
    checkpoint=dict(type=AtomicCheckpointHook, interval=1, max_keep_ckpts=1, save_best='accuracy/top1', rule='greater'))
custom_hooks = [dict(type=kind) for kind in (CheckInputHook, TeacherTestHook, EpochSeedHook, FiniteHook, CriticWatchHook,
                                             PlainCheckpointHook)]
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl'))
visualizer = dict(type=Visualizer, vis_backends=[dict(type=LocalVisBackend)])
log_processor = dict(type=LogProcessor, window_size=100, mean_pattern=r'^(time|data_time)$')
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=5)
