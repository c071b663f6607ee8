from .accuracy import BatchAccuracy

__all__ = ['BatchAccuracy']
