"""The teacher as training sees it, folded and in bfloat16, against itself as it was trained, in float32."""
import pytest
import torch
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead
from torch import nn

from mmcrrcd.models import EmbeddingNetwork, ResNetCIFAR, VGGCIFAR, WRNCIFAR
from mmcrrcd.models.teachers.frozen import fold
from mmcrrcd.models.networks import extract

TEACHERS = dict(resnet56=(ResNetCIFAR, dict(depth=56), 64), wrn40_2=(WRNCIFAR, dict(depth=40, width=2), 128),
                vgg13=(VGGCIFAR, dict(depth=13), 512))
TOLERANCE = 0.05             # of an embedding's length; a trained resnet56 on CIFAR-100 stays below 0.02


@pytest.mark.parametrize('name', TEACHERS)
def test_embeddings_in_bfloat16_are_close_to_those_of_the_unfolded_float32_teacher(name):
    torch.manual_seed(0)
    kind, settings, width = TEACHERS[name]
    teacher = ImageClassifier(backbone=dict(type=kind, **settings), neck=dict(type=GlobalAveragePooling),
                              head=dict(type=LinearClsHead, num_classes=100, in_channels=width))
    images = torch.randn(16, 3, 32, 32)
    with torch.no_grad():
        teacher.train()
        extract(teacher, images)                            # statistics of its own, so that maps keep their size
        for norm in (m for m in teacher.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.5, 0.5)
            norm.momentum = 1.0
        extract(teacher, images)
        expected = extract(teacher.eval(), images).embedding
        folded = fold(teacher, images)
        with torch.autocast('cpu', torch.bfloat16):
            found = extract(folded, images).embedding
    assert folded is not teacher and found.dtype == torch.float32
    error = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert 0 < error.max() < TOLERANCE


def test_a_norm_that_belongs_to_no_convolution_stays():
    face = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5)).eval()
    network = EmbeddingNetwork(face)
    assert fold(network, torch.randn(2, 3, 8, 8)) is network


def test_a_norm_folded_where_it_does_not_belong_is_noticed_in_the_embedding():
    face = nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    face.train()(10 * torch.randn(8, 3, 8, 8) - 5)         # statistics of its own
    network = EmbeddingNetwork(face.eval())
    assert fold(network, torch.randn(2, 3, 8, 8)) is network
