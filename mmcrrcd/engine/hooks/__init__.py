"""Hooks of mmengine's Runner."""
from .atomic_checkpoint import AtomicCheckpointHook
from .check_input import CheckInputHook
from .compile import CompileHook
from .critic_watch import CriticWatchHook
from .epoch_seed import EpochSeedHook, PairedSeedHook, seed_all, seed_worker
from .finite import FiniteHook
from .interval_info import IntervalInfoHook
from .plain_checkpoint import PlainCheckpointHook
from .replay import ReplayHook
from .resume import ResumeHook
from .teacher_test import TeacherTestHook

__all__ = ['AtomicCheckpointHook', 'CheckInputHook', 'CompileHook', 'CriticWatchHook', 'EpochSeedHook', 'FiniteHook',
           'IntervalInfoHook', 'PairedSeedHook', 'PlainCheckpointHook', 'ReplayHook', 'ResumeHook',
           'TeacherTestHook', 'seed_all', 'seed_worker']
