"""cifar_240e for ShuffleNet and MobileNet students, which the published tables train with a learning rate of 0.01."""
from mmengine.config import read_base

with read_base():
    from .cifar_240e import *

optim_wrapper.optimizer.update(lr=0.01)
