from .hooks import EpochSeedHook, FiniteHook, PlainCheckpointHook, seed_all, seed_worker
from .optim_wrapper import BF16OptimWrapper

__all__ = ['BF16OptimWrapper', 'EpochSeedHook', 'FiniteHook', 'PlainCheckpointHook', 'seed_all', 'seed_worker']
