"""Which views of its images a data set shows."""
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from mmcrrcd.datasets.replay import ReplayedViews
from mmcrrcd.registry import HOOKS


@HOOKS.register_module()
class ReplayHook(Hook):
    """Tells the training data, where they are :class:`ReplayedViews`, which epoch it is.

    In training by iterations an epoch is as many of them as the data give.
    """

    def before_train(self, runner) -> None:
        """Finds the replayed data, and tells them which epoch comes first."""
        dataset = runner.train_dataloader.dataset
        self.dataset = dataset if isinstance(dataset, ReplayedViews) else None
        self.by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if self.dataset is not None:                     # of the first batches, which a loader fetches ahead
            self.tell(runner)

    def before_train_epoch(self, runner) -> None:
        """Tells the data set which epoch it is."""
        if self.dataset is not None:
            self.tell(runner)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """The same in a training by iterations."""
        if self.dataset is not None and not self.by_epoch:
            self.tell(runner)

    def tell(self, runner) -> None:
        """Sets the epoch that decides which view of an image is next."""
        self.dataset.set_epoch(runner.epoch if self.by_epoch else runner.iter // len(runner.train_dataloader))
