from .accuracy import BatchAccuracy
from .predictions import KeepPredictions

__all__ = ['BatchAccuracy', 'KeepPredictions']
