"""Teachers: adapters for foreign networks, ONNX files, and stored answers."""
from .adapters import EmbeddingNetwork, PlainNetwork
from .cache import TeacherCache
from .onnx_network import OnnxNetwork

__all__ = ['EmbeddingNetwork', 'OnnxNetwork', 'PlainNetwork', 'TeacherCache']
