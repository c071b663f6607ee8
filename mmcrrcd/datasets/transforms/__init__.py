"""Transforms for mmpretrain's pipelines, and the one downsampling that all parts share."""
from .resolution_pair import ResolutionPair, downsample
from .student_view import StudentView

__all__ = ['ResolutionPair', 'StudentView', 'downsample']
