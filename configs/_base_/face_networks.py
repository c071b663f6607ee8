"""Face networks with embeddings of 512, ArcFace for a loss, and the 10,575 people of CASIA-WebFace."""
from mmpretrain.models import ImageClassifier, ResNet_CIFAR

from mmcrrcd.models import ArcFaceMargin, CosineHead, EmbeddingNeck, IResNet

large = dict(type='Normal', layer='Conv2d', std=0.1)      # the first weights of IResNet, for the other backbones, too
arcface = dict(type=CosineHead, num_classes=10_575, in_channels=512, margin=dict(type=ArcFaceMargin, margin=0.5))

# For images of 112×112 px, those upsampled to 112 included: 7x7 at the end.
iresnet18 = dict(
    type=ImageClassifier, head=arcface,
    backbone=dict(type=IResNet, depth=18),
    neck=dict(type=EmbeddingNeck, in_channels=512, map_size=7))
iresnet50 = dict(
    type=ImageClassifier, head=arcface,
    backbone=dict(type=IResNet, depth=50),
    neck=dict(type=EmbeddingNeck, in_channels=512, map_size=7))
resnet18 = dict(
    type=ImageClassifier, head=arcface,
    backbone=dict(type=ResNet_CIFAR, depth=18, strides=(2, 2, 2, 2), zero_init_residual=False, out_indices=(0, 1, 2, 3),
                  init_cfg=large),
    neck=dict(type=EmbeddingNeck, in_channels=512, map_size=7))
resnet50 = dict(
    type=ImageClassifier, head=arcface,
    backbone=dict(type=ResNet_CIFAR, depth=50, strides=(2, 2, 2, 2), zero_init_residual=False, out_indices=(0, 1, 2, 3),
                  init_cfg=large),
    neck=dict(type=EmbeddingNeck, in_channels=2048, map_size=7))

# For images of 16×16 px as they are: the first stage keeps the size, 2x2 at the end.
resnet18_16px = dict(
    type=ImageClassifier, head=arcface,
    backbone=dict(type=ResNet_CIFAR, depth=18, zero_init_residual=False, out_indices=(0, 1, 2, 3),
                  init_cfg=large),
    neck=dict(type=EmbeddingNeck, in_channels=512, map_size=2))
