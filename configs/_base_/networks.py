"""The networks of the paper's tables, for 100 classes. All give the feature maps of their stages."""
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead, ResNet_CIFAR

from mmcrrcd.models import DenseNetCIFAR, ResNetCIFAR, ShuffleNetV1CIFAR, ShuffleNetV2CIFAR, VGGCIFAR, WRNCIFAR

pool = dict(type=GlobalAveragePooling)

resnet20 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=ResNetCIFAR, depth=20),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=64, init_cfg=None))
resnet32 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=ResNetCIFAR, depth=32),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=64, init_cfg=None))
resnet56 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=ResNetCIFAR, depth=56),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=64, init_cfg=None))
resnet110 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=ResNetCIFAR, depth=110),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=64, init_cfg=None))
resnet8x4 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=ResNetCIFAR, depth=8, widths=(32, 64, 128, 256)),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=256, init_cfg=None))
resnet32x4 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=ResNetCIFAR, depth=32, widths=(32, 64, 128, 256)),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=256, init_cfg=None))
wrn16_2 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=WRNCIFAR, depth=16, width=2),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=128, init_cfg=None))
wrn40_1 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=WRNCIFAR, depth=40, width=1),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=64, init_cfg=None))
wrn40_2 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=WRNCIFAR, depth=40, width=2),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=128, init_cfg=None))
vgg8 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=VGGCIFAR, depth=8),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=512, init_cfg=None))
vgg11 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=VGGCIFAR, depth=11),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=512, init_cfg=None))
vgg13 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=VGGCIFAR, depth=13),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=512, init_cfg=None))
densenet100 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=DenseNetCIFAR, depth=100),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=342, init_cfg=None))
shufflenetv1 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=ShuffleNetV1CIFAR),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=960, init_cfg=None))
shufflenetv2 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=ShuffleNetV2CIFAR),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=1024, init_cfg=None))
resnet18 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=ResNet_CIFAR, depth=18, zero_init_residual=False, out_indices=(0, 1, 2, 3)),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=512, init_cfg=None))
wrn50 = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=ResNet_CIFAR, depth=50, base_channels=128, expansion=2, zero_init_residual=False,
                  out_indices=(0, 1, 2, 3)),
    head=dict(type=LinearClsHead, num_classes=100, in_channels=2048, init_cfg=None))
