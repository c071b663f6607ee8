"""The distiller, CRRCD, and the methods that are more than a loss."""
from .crrcd import CRRCD
from .distiller import Distiller
from .ekd import EKD
from .simkd import SimKD
from .sskd import SSKD

__all__ = ['CRRCD', 'Distiller', 'EKD', 'SSKD', 'SimKD']
