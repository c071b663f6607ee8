from .faces import FaceFolder
from .glyphs import GlyphArrays
from .identification_sets import FaceFiles, TinyFace, UCCSFaces, read_orl, read_tinyface
from .images import CIFAR10Arrays, CIFAR100Arrays, ImageArrays, whole_batch
from .recordio import RecordFaces
from .stl10 import STL10Arrays
from .stock import StockArrays
from .svhn import SVHNArrays
from .tiny_imagenet import TinyImageNetArrays
from .transforms import ResolutionPair, StudentView, reduce_resolution
from .verification_sets import VerificationPairs, bin_pairs, lfw_pairs

__all__ = ['CIFAR10Arrays', 'CIFAR100Arrays', 'FaceFiles', 'FaceFolder', 'GlyphArrays', 'ImageArrays', 'RecordFaces',
           'ResolutionPair', 'STL10Arrays', 'SVHNArrays', 'StockArrays', 'StudentView', 'TinyFace', 'TinyImageNetArrays',
           'UCCSFaces', 'VerificationPairs', 'bin_pairs', 'lfw_pairs', 'read_orl', 'read_tinyface', 'reduce_resolution', 'whole_batch']
