"""Says when a critic has stopped telling positives from negatives."""
from mmengine.hooks import Hook

from mmcrrcd.registry import HOOKS


GAP = 0.02


def warning_of(positive: float, negative: float, gap: float = GAP) -> str | None:
    """What to say where the mean scores of positives and of negatives are closer than ``gap``."""
    if abs(positive - negative) >= gap:
        return None
    return (f'the critic is a constant: positives score {positive:.3f}, negatives {negative:.3f}, so the relational loss '
            "teaches nothing. normalizer='softmax', center='anchor' or a lower learning rate usually helps.")


@HOOKS.register_module()
class CriticWatchHook(Hook):
    """Warns, after an epoch, where the mean scores of positives and of negatives are closer than ``gap``.

    Such a critic is a constant: aligned unit vectors have no gradient back, so it stays one, and the relational loss teaches
    nothing. Looked at once an epoch, from the second on (the queue has to fill first).
    """

    def __init__(self, gap: float = GAP):
        self.gap = gap

    def after_train_epoch(self, runner) -> None:
        scalars = runner.message_hub.log_scalars
        if runner.epoch == 0:
            return
        for name in [key.removesuffix('positive') for key in scalars if key.endswith('_score_positive')]:
            positive, negative = (scalars[f'{name}{kind}'].current() for kind in ('positive', 'negative'))
            if warning := warning_of(positive, negative, self.gap):
                runner.logger.warning(warning)
