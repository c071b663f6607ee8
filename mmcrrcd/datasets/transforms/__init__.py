from .resolution_pair import ResolutionPair, reduce_resolution

__all__ = ['ResolutionPair', 'reduce_resolution']
