"""Says when a critic has negatives, and when it has stopped telling positives from them."""
from mmengine.dist import get_world_size
from mmengine.hooks import Hook

from mmcrrcd.models.losses import RelationContrastLoss
from mmcrrcd.models.networks import unwrapped
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
    nothing. Looked at once an epoch, from the second on (the queue has to fill first). Before training it says how long
    that takes; the log's ``<loss>_negatives`` shows how many images serve as negatives.
    """

    def __init__(self, gap: float = GAP):
        self.gap = gap

    def before_train(self, runner) -> None:
        """Says when the queue of negatives will be full."""
        model = unwrapped(runner.model)
        for name, loss in getattr(model, 'losses', {}).items():
            if isinstance(loss, RelationContrastLoss) and loss.num_negatives and not runner.iter:
                batch = (runner.train_dataloader.batch_size or 1) * get_world_size()
                runner.logger.info(f'{name}: its queue of {loss.num_negatives} negatives is full after '
                                   f'{-(-loss.num_negatives // batch)} iterations; till then the batch gives negatives, too')

    def after_train_epoch(self, runner) -> None:
        """Warns where positives and negatives score alike."""
        scalars = runner.message_hub.log_scalars
        if runner.epoch == 0:
            return
        for name in [key.removesuffix('positive') for key in scalars if key.endswith('_score_positive')]:
            positive, negative = (scalars[f'{name}{kind}'].current() for kind in ('positive', 'negative'))
            if warning := warning_of(positive, negative, self.gap):
                runner.logger.warning(warning)
