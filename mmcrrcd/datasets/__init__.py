from .glyphs import GlyphArrays
from .images import CIFAR10Arrays, CIFAR100Arrays, ImageArrays, whole_batch
from .transforms import ResolutionPair, reduce_resolution

__all__ = ['CIFAR10Arrays', 'CIFAR100Arrays', 'GlyphArrays', 'ImageArrays', 'ResolutionPair', 'reduce_resolution',
           'whole_batch']
