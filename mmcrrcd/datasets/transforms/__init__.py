from .resolution_pair import ResolutionPair, downsample

__all__ = ['ResolutionPair', 'downsample']
