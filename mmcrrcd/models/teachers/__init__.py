from .adapters import EmbeddingNetwork, PlainNetwork
from .cache import TeacherCache
from .onnx_network import OnnxClassifier, OnnxNetwork

__all__ = ['EmbeddingNetwork', 'OnnxClassifier', 'OnnxNetwork', 'PlainNetwork', 'TeacherCache']
