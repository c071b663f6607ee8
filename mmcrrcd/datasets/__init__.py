from .glyphs import GlyphArrays
from .images import CIFAR10Arrays, CIFAR100Arrays, ImageArrays, whole_batch
from .stl10 import STL10Arrays
from .stock import StockArrays
from .svhn import SVHNArrays
from .tiny_imagenet import TinyImageNetArrays
from .transforms import ResolutionPair, reduce_resolution

__all__ = ['CIFAR10Arrays', 'CIFAR100Arrays', 'GlyphArrays', 'ImageArrays', 'ResolutionPair', 'STL10Arrays', 'SVHNArrays',
           'StockArrays', 'TinyImageNetArrays', 'reduce_resolution', 'whole_batch']
