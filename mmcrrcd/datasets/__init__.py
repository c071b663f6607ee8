"""Data sets: arrays that lie in memory as a whole, faces, and what replays or wraps them."""
from .faces import FaceFolder
from .glyphs import GlyphArrays
from .identification_sets import FaceFiles, TinyFace, UCCSFaces, read_orl, read_tinyface, split_gallery
from .image_folder import ImageFolder
from .images import CIFAR10Arrays, CIFAR100Arrays, ImageArrays, whole_batch
from .recordio import RecordFaces
from .pipeline_arrays import PipelineArrays
from .replay import ReplayedViews
from .stl10 import STL10Arrays
from .subset import SubsetArrays
from .svhn import SVHNArrays
from .tiny_imagenet import TinyImageNetArrays
from .transforms import ResolutionPair, StudentView, downsample
from .verification_sets import VerificationPairs, bin_pairs, lfw_pairs

__all__ = [
    'CIFAR100Arrays', 'CIFAR10Arrays', 'FaceFiles', 'FaceFolder', 'GlyphArrays', 'ImageArrays', 'ImageFolder', 'PipelineArrays',
    'RecordFaces', 'ReplayedViews', 'ResolutionPair', 'STL10Arrays', 'SVHNArrays', 'StudentView', 'SubsetArrays', 'TinyFace',
    'TinyImageNetArrays', 'UCCSFaces', 'VerificationPairs', 'bin_pairs', 'downsample', 'lfw_pairs', 'read_orl',
    'read_tinyface', 'split_gallery', 'whole_batch',
]
