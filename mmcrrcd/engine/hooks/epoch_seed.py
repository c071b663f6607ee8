"""Random state as a function of seed, epoch and rank."""
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop

from mmcrrcd.generators import seed_all
from mmcrrcd.registry import FUNCTIONS, HOOKS


@FUNCTIONS.register_module()
def seed_worker(worker_id: int) -> None:
    """``worker_init_fn`` of a data loader: other augmentations in every worker and every epoch, repeatable all the same.

    PyTorch has seeded the worker from the main process's state, which :class:`EpochSeedHook` sets. The function of
    mmengine gives a worker the same seed in every epoch. Needs ``persistent_workers=False``.
    """
    seed_all(torch.initial_seed() % 2**63)


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds all generators anew before each epoch, so that a resumed run goes on with the very numbers of one never stopped.

    The state itself needs no place in the checkpoint. Needs checkpoints between epochs. A training by iterations is seeded
    before each of them; what its data loader draws in the main process (``num_workers=0``) is still another after resuming.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        """Warns of workers that outlive an epoch."""
        if getattr(runner.train_dataloader, 'persistent_workers', False):
            runner.logger.warning('train_dataloader.persistent_workers=True: workers that outlive an epoch are not seeded '
                                  'anew, so a resumed training draws other augmentations than one never stopped')

    def before_train_epoch(self, runner) -> None:
        """Seeds all generators by seed, epoch and rank."""
        seed_all(runner.seed, runner.epoch, get_rank())

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """In a training by iterations: seeds them by the iteration instead."""
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            seed_all(runner.seed, runner.iter, get_rank())


@HOOKS.register_module()
class PairedSeedHook(EpochSeedHook):
    """Seeds before each iteration, too, and before the networks are initialized.

    So trainings of one seed start from the same student and see the same crops and flips, however many random numbers their
    losses draw. A difference between two methods is then only theirs.
    """

    def before_run(self, runner) -> None:
        """Seeds all generators before the first weights are drawn."""
        seed_all(runner.seed)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Seeds them for this batch."""
        seed_all(runner.seed, runner.epoch, get_rank(), batch_idx)
