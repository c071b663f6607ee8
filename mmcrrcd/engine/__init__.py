"""What is put into mmengine's Runner: hooks, loops and the optimizer wrapper."""
from .graphed import GraphedTrainLoop
from .hooks import (AtomicCheckpointHook, CheckInputHook, CompileHook, CriticWatchHook, EpochSeedHook, FiniteHook,
                    IntervalInfoHook, PairedSeedHook, PlainCheckpointHook, ReplayHook, TeacherTestHook, seed_all,
                    seed_worker)
from .optim_wrapper import BF16OptimWrapper

__all__ = ['AtomicCheckpointHook', 'BF16OptimWrapper', 'CheckInputHook', 'CompileHook', 'CriticWatchHook', 'EpochSeedHook',
           'FiniteHook', 'GraphedTrainLoop', 'IntervalInfoHook', 'PairedSeedHook', 'PlainCheckpointHook',
           'ReplayHook', 'TeacherTestHook', 'seed_all', 'seed_worker']
