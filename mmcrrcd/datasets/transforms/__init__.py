from .resolution_pair import ResolutionPair, reduce_resolution
from .student_view import StudentView

__all__ = ['ResolutionPair', 'StudentView', 'reduce_resolution']
