"""Algorithms, losses, teachers, networks and the data preprocessor."""
from .algorithms import *  # noqa: F401,F403
from .backbones import *  # noqa: F401,F403
from .embedding_neck import EmbeddingNeck  # noqa: F401
from .heads import *  # noqa: F401,F403
from .losses import *  # noqa: F401,F403
from .networks import extract  # noqa: F401
from .onnx_classifier import OnnxClassifier  # noqa: F401
from .preprocessor import PairPreprocessor, crop_and_flip  # noqa: F401
from .teachers import EmbeddingNetwork, OnnxNetwork, PlainNetwork, TeacherCache  # noqa: F401
