"""Networks for images of one's own. num_classes=None: as many classes as the training images have."""
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead, MobileNetV3, ResNet_CIFAR

from mmcrrcd.models import ShuffleNetV2CIFAR

pool = dict(type=GlobalAveragePooling)

resnet18_64px = dict(                                    # a teacher: 4×4 at the end, half the usual width
    type=ImageClassifier, neck=pool,
    backbone=dict(type=ResNet_CIFAR, depth=18, stem_channels=32, base_channels=32, strides=(2, 2, 2, 2),
                  out_indices=(0, 1, 2, 3)),
    head=dict(type=LinearClsHead, num_classes=None, in_channels=256, init_cfg=None))
shufflenetv2 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=ShuffleNetV2CIFAR),
    head=dict(type=LinearClsHead, num_classes=None, in_channels=1024, init_cfg=None))
mobilenetv3 = dict(                                      # divides a side by 32: show it small images upsampled
    type=ImageClassifier, neck=pool,
    backbone=dict(type=MobileNetV3, arch='small'),
    head=dict(type=LinearClsHead, num_classes=None, in_channels=576, init_cfg=None))
resnet18 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=ResNet_CIFAR, depth=18, out_indices=(0, 1, 2, 3)),
    head=dict(type=LinearClsHead, num_classes=None, in_channels=512, init_cfg=None))
