"""Cross-Resolution Relational Contrastive Distillation, and a framework for knowledge distillation around it.

What stands in ``__all__`` is public; it is imported when it is first asked for, so that ``import mmcrrcd`` costs milliseconds.
The registries are in ``mmcrrcd.registry``.
"""
import os
import warnings
from importlib import import_module

from mmcrrcd.version import __version__, check_requirements

check_requirements()
warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')  # of mmcv-lite; nothing here uses it
# Of images with more pixels neither OpenCV, which asks for this when it is imported, nor datasets/read_image.py decodes any.
os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(2 ** 26))

_PUBLIC = dict(
    CRRCD='mmcrrcd.models', Distiller='mmcrrcd.models', DistillLoss='mmcrrcd.models', InputError='mmcrrcd.errors',
    NetworkOutput='mmcrrcd.structures', Prediction='mmcrrcd.inference', Student='mmcrrcd.inference',
    load_student='mmcrrcd.inference')

__all__ = ['__version__', *_PUBLIC]


def __getattr__(name: str):
    """Imports a public name when it is asked for."""
    if name not in _PUBLIC:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
