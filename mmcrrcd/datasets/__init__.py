from .faces import FaceFolder
from .glyphs import GlyphArrays
from .identification_sets import FaceFiles, TinyFace, UCCSFaces, read_orl, read_tinyface
from .images import CIFAR10Arrays, CIFAR100Arrays, ImageArrays, whole_batch
from .recordio import RecordFaces
from .stl10 import STL10Arrays
from .pipeline_arrays import PipelineArrays
from .svhn import SVHNArrays
from .tiny_imagenet import TinyImageNetArrays
from .transforms import ResolutionPair, downsample
from .verification_sets import VerificationPairs, bin_pairs, lfw_pairs

__all__ = [
    'CIFAR100Arrays', 'CIFAR10Arrays', 'FaceFiles', 'FaceFolder', 'GlyphArrays', 'ImageArrays', 'PipelineArrays',
    'RecordFaces', 'ResolutionPair', 'STL10Arrays', 'SVHNArrays', 'TinyFace', 'TinyImageNetArrays', 'UCCSFaces',
    'VerificationPairs', 'bin_pairs', 'downsample', 'lfw_pairs', 'read_orl', 'read_tinyface', 'whole_batch',
]
