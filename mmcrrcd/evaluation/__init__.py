"""Metrics, and tests that need more than mmengine's loop."""
from .accuracy import BatchAccuracy
from .predictions import KeepPredictions

__all__ = ['BatchAccuracy', 'KeepPredictions']
