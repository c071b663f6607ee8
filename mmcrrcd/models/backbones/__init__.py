"""The networks of the published tables, with a feature map for each stage."""
from .densenet import DenseNetCIFAR
from .iresnet import IResNet
from .mobilenet_v2 import MobileNetV2CIFAR
from .resnet_cifar import ResNetCIFAR
from .shufflenet_v1 import ShuffleNetV1CIFAR
from .shufflenet_v2 import ShuffleNetV2CIFAR
from .vgg import VGGCIFAR
from .wrn import WRNCIFAR

__all__ = ['DenseNetCIFAR', 'IResNet', 'MobileNetV2CIFAR', 'ResNetCIFAR', 'ShuffleNetV1CIFAR', 'ShuffleNetV2CIFAR', 'VGGCIFAR',
           'WRNCIFAR']
