"""Heads for faces: margins over cosines, and their gradients."""
from .arcface import ArcFaceMargin, arcface_cosine
from .cosface import CosFaceMargin, cosface_cosine
from .cosine_head import CosineHead
from .magface import MagFaceHead, magface_margin, magface_regularizer
from .sphereface import SphereFaceMargin, sphereface_cosine

__all__ = ['ArcFaceMargin', 'CosFaceMargin', 'CosineHead', 'MagFaceHead', 'SphereFaceMargin', 'arcface_cosine',
           'cosface_cosine', 'magface_margin', 'magface_regularizer', 'sphereface_cosine']
