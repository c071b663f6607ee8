from .answers import draw_answers

__all__ = ['draw_answers']
