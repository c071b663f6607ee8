from .crrcd import CRRCD
from .distiller import Distiller

__all__ = ['CRRCD', 'Distiller']
