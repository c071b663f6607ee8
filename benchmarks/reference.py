"""RepDistiller's own data loaders and training loop, resnet56 to resnet20: HobbitLong/RepDistiller, its checkout on PYTHONPATH.

Patched from outside, for today's packages: torchvision's check of the files, the names of its arrays, a call of ``.cuda()``,
``.view`` of a strided tensor.
"""
import contextlib
import io
import types
from unittest import mock

import torch
import torchvision
from mmengine.device import get_device
from mmpretrain.evaluation import Accuracy
from torch import nn

from .common import Timed

CONFIG = 'configs/crrcd/resnet56_resnet20_cifar100.py'   # of this package, for the same pair
METHODS = ('kd', 'crd')


class Reference:
    """``loader``, and a training with it, for a method: 'kd' or 'crd'."""

    def __init__(self, method: str, data_root: str, batch: int, workers: int, lr: float = 0.05):
        arrays = {'train_data': property(lambda self: self.data), 'train_labels': property(lambda self: self.targets)}
        with mock.patch('torchvision.datasets.CIFAR100', type('CIFAR100', (torchvision.datasets.CIFAR100,), arrays)):
            from crd.criterion import CRDLoss
            from dataset import cifar100
            from distiller_zoo import DistillKL
            from helper import loops
            from models import model_dict
        cifar100.get_data_folder = lambda: data_root
        loops.accuracy = lambda output, target, topk: [each[0] for each in Accuracy.calculate(output, target, topk)]
        self.train_distill = loops.train_distill
        self.opt = opt = types.SimpleNamespace(                          # the weights of its run_cifar_distill.sh
            distill=method, gamma=1, alpha=1.0, beta=0.8, print_freq=10**9, s_dim=64, t_dim=64, feat_dim=128, nce_k=16384,
            nce_t=0.07, nce_m=0.5)
        with mock.patch('torchvision.datasets.cifar.check_integrity', lambda *_: True):
            self.loader, _, opt.n_data = (
                cifar100.get_cifar100_dataloaders_sample(batch, workers, k=opt.nce_k) if method == 'crd' else
                cifar100.get_cifar100_dataloaders(batch, workers, is_instance=True))
        criteria, trained = [nn.CrossEntropyLoss(), DistillKL(4)], [model_dict['resnet20'](num_classes=100)]
        if method == 'crd':
            with mock.patch('crd.memory.AliasMethod.cuda', lambda self: None):           # which draws nothing here
                criteria.append(CRDLoss(opt))
            trained += [criteria[-1].embed_s, criteria[-1].embed_t]
        self.optimizer = torch.optim.SGD(nn.ModuleList(trained).parameters(), lr, momentum=0.9, weight_decay=5e-4)
        self.modules = nn.ModuleList([*trained, model_dict['resnet56'](num_classes=100)]).to(get_device())
        self.criteria = nn.ModuleList([*criteria, nn.Identity()]).to(get_device())          # of KD the third is not called

    def seconds(self, warmup: int, number: int) -> float:
        """Of so many steps, after ``warmup`` others."""
        batches = Timed(self.loader, warmup, number)
        with contextlib.redirect_stdout(io.StringIO()):
            self.train_distill(1, batches, self.modules, self.criteria, self.optimizer, self.opt)
        return batches.seconds
