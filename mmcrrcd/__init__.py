"""Cross-Resolution Relational Contrastive Distillation, and a framework for knowledge distillation around it."""
from mmcrrcd.version import __version__, check_requirements

check_requirements()

__all__ = ['__version__']
