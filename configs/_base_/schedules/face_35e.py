"""The paper's 35 epochs for faces: batch 96, learning rate x 0.1 after epochs 21, 28 and 32; the last checkpoint counts."""
from mmengine.config import read_base

with read_base():
    from ..runtime import *
    from .paper_35e import *
    from ..datasets.casia_webface import *               # or lfw

# ArcFace's 0.1 for 512 images, in proportion. In the first iterations on LFW the paper's 0.05 learned much more slowly.
optim_wrapper.optimizer.update(lr=0.02)
default_hooks.checkpoint.update(save_best=None)          # there is no validation to be best in
