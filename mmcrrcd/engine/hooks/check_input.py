"""What only the whole run can know: do data, batch and model fit each other?"""
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mmcrrcd.errors import InputError
from mmcrrcd.registry import HOOKS


@HOOKS.register_module()
class CheckInputHook(Hook):
    """Compares, before training, the data set's classes with the student's, and the batch with what the losses can hold.

    Raises:
        InputError: they do not fit.
    """

    def before_train(self, runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        loader = runner.train_dataloader
        classes = (getattr(loader.dataset, 'metainfo', None) or {}).get('classes')
        known = getattr(model.student.head, 'num_classes', None)
        if classes is not None and known is not None and len(classes) != known:
            raise InputError(f'the training data have {len(classes)} classes, the student {known}: set its head.num_classes')
        for loss in model.losses.values():
            if hasattr(loss, 'check_batch'):
                loss.check_batch(loader.batch_size * get_world_size())
