"""What only the whole run can know: do data, batch and model fit each other?"""
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop

from mmcrrcd.errors import InputError
from mmcrrcd.registry import HOOKS


@HOOKS.register_module()
class CheckInputHook(Hook):
    """Compares, before training, the data's classes with the student's, the batch with what the losses can hold, the weights'
    schedules with the loop, the place of the images with the loader's workers.

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
        scheduled = [name for name, weight in model.weights.items() if isinstance(weight, (list, tuple))]
        if scheduled and not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise InputError(f'the weight of {scheduled[0]} is a schedule over epochs, but training is by iterations')
        images = getattr(loader.dataset, 'images', None)
        if loader.num_workers and getattr(images, 'is_cuda', False):
            raise InputError(f"images kept on the GPU need num_workers=0, got {loader.num_workers}; or say device='cpu'")
        for loss in model.losses.values():
            if hasattr(loss, 'check_batch'):
                loss.check_batch(loader.batch_size * get_world_size())
