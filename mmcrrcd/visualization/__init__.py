"""Pictures of answers, resolutions, embeddings and similarities."""
from .answers import draw_answers

__all__ = ['draw_answers']
