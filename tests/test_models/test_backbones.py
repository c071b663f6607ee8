"""The CIFAR backbones: sizes against published networks, every input size, feature maps before activation, folding of batch
norms.
"""
import json
from collections import Counter

import pytest
import torch
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead, ResNet_CIFAR
from torch import nn

import mmcrrcd.models  # noqa: F401
from mmcrrcd.models.backbones import (VGGCIFAR, WRNCIFAR, DenseNetCIFAR, MobileNetV2CIFAR, ResNetCIFAR, ShuffleNetV1CIFAR,
                                      ShuffleNetV2CIFAR)
from mmcrrcd.models.backbones.base import StageBackbone
from mmcrrcd.models.teachers.frozen import fold
from mmcrrcd.models.networks import ask_for_pre_activations, extract
from mmcrrcd.registry import MODELS
from utils import GOLDEN

X4 = (32, 64, 128, 256)
ALL = (0, 1, 2, 3)
NETWORKS = {
    **{f'resnet{depth}': dict(type=ResNetCIFAR, depth=depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    'resnet8x4': dict(type=ResNetCIFAR, depth=8, widths=X4),
    'resnet32x4': dict(type=ResNetCIFAR, depth=32, widths=X4),
    **{f'wrn_{d}_{w}': dict(type=WRNCIFAR, depth=d, width=w) for d, w in ((16, 1), (16, 2), (40, 1), (40, 2))},
    **{f'vgg{depth}': dict(type=VGGCIFAR, depth=depth) for depth in (8, 11, 13)},
    'MobileNetV2': dict(type=MobileNetV2CIFAR),
    'ShuffleV1': dict(type=ShuffleNetV1CIFAR),
    'ShuffleV2': dict(type=ShuffleNetV2CIFAR),
    'ResNet18': dict(type=ResNet_CIFAR, depth=18, out_indices=ALL),
    'ResNet50': dict(type=ResNet_CIFAR, depth=50, out_indices=ALL),
    'WRN50-2': dict(type=ResNet_CIFAR, depth=50, base_channels=128, expansion=2, out_indices=ALL),
}
# torchvision's network without its max-pooling and with stride 1 in its stem: the reference has its parameters alone
WRN50 = {'maps': [[64, 32, 32], [256, 32, 32], [512, 16, 16], [1024, 8, 8], [2048, 4, 4]], 'embedding': 2048}
# one of each kind, for what does not depend on the depth
KINDS = {
    'resnet': dict(type=ResNetCIFAR, depth=8),
    'wrn': dict(type=WRNCIFAR, depth=16, width=2),
    'densenet': dict(type=DenseNetCIFAR, depth=16),
    'vgg': dict(type=VGGCIFAR, depth=8),
    'mobilenet_v2': dict(type=MobileNetV2CIFAR),
    'shufflenet_v1': dict(type=ShuffleNetV1CIFAR),
    'shufflenet_v2': dict(type=ShuffleNetV2CIFAR),
}
AFTER_RELU = ('resnet', 'vgg', 'shufflenet_v1', 'shufflenet_v2')


def build(cfg: dict) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build(dict(cfg))


def randomise_norms(network: nn.Module) -> nn.Module:
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.7, 1.3)
            nn.init.normal_(m.bias, 0, 0.3)
            nn.init.normal_(m.running_mean, 0, 0.3)
            nn.init.uniform_(m.running_var, 0.7, 1.5)
    return network


@pytest.mark.parametrize('name', NETWORKS)
def test_equals_the_published_network(name):
    published = json.loads((GOLDEN / 'models.json').read_text())[name]
    backbone = build(NETWORKS[name])
    backbone.eval()  # which returns None in mmpretrain's ResNet
    published = {**WRN50, **published} if name == 'WRN50-2' else published
    embedding = published['embedding']
    parameters = [*backbone.parameters(), *nn.Linear(embedding, 100).parameters()]
    assert sum(p.numel() for p in parameters) == published['parameters']
    assert Counter(tuple(p.shape) for p in parameters) == Counter(map(tuple, published['shapes']))
    with torch.no_grad():
        out = backbone(torch.randn(2, 3, 32, 32))
    maps = [tuple(shape) for shape in published['maps']]
    if isinstance(backbone, StageBackbone):
        assert [tuple(x.shape[1:]) for x in out[:-1]] == maps
        assert backbone.out_channels == embedding
    else:  # mmpretrain does not return the stem
        assert [tuple(x.shape[1:]) for x in out] == maps[1:]
    assert out[-1].shape[1] == embedding


def test_every_published_network_is_there():
    assert set(json.loads((GOLDEN / 'models.json').read_text())) == set(NETWORKS)


def test_densenet_has_the_parameters_of_the_published_weights():
    """DenseNet-BC with 100 layers and growth 12, Table 2 of its paper, and CIFAR-100's classifier."""
    network = build(dict(type=DenseNetCIFAR, depth=100))
    assert sum(p.numel() for p in network.parameters()) + sum(p.numel() for p in nn.Linear(342, 100).parameters()) == 800_032


@pytest.mark.parametrize('size', (8, 16, 32, 64))
@pytest.mark.parametrize('kind', KINDS)
def test_every_image_size(kind, size):
    backbone = build(KINDS[kind])
    images = torch.randn(2, 3, size, size, requires_grad=True)
    out = backbone(images)
    assert all(x.ndim == 4 and len(x) == 2 and x.isfinite().all() for x in out)
    sides = [x.shape[-1] for x in out]
    assert sides == [x.shape[-2] for x in out] == sorted(sides, reverse=True)
    sum(x.square().mean() for x in out).backward()
    assert images.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


@pytest.mark.parametrize('size', (8, 16, 32, 64))
@pytest.mark.parametrize('blocks', (dict(depth=18), dict(depth=50), dict(depth=50, expansion=2)), ids=('18', '50', 'wrn50_2'))
def test_every_image_size_by_mmpretrains_networks(blocks, size):
    """A part of their width: ResNet18, ResNet50 and WRN50-2 in the form for CIFAR."""
    backbone = ResNet_CIFAR(**blocks, stem_channels=8, base_channels=16, out_indices=ALL)
    images = torch.randn(2, 3, size, size, requires_grad=True)
    out = backbone(images)
    assert [tuple(x.shape[2:]) for x in out] == [(size // k, size // k) for k in (1, 2, 4, 8)]
    sum(x.square().mean() for x in out).backward()
    assert images.grad.isfinite().all() and all(p.grad is not None for p in backbone.parameters())


@pytest.mark.parametrize('size, sides', ((8, [8, 4, 2, 1, 1]), (16, [16, 8, 4, 2, 2]), (32, [32, 16, 8, 4, 4]),
                                         (48, [48, 24, 12, 6, 6]), (64, [64, 32, 16, 8, 4])))
def test_vgg_pools_a_fourth_time_from_64_pixels_on(size, sides):
    with torch.no_grad():
        assert [x.shape[-1] for x in build(KINDS['vgg']).eval()(torch.randn(1, 3, size, size))[:-1]] == sides


@pytest.mark.parametrize('training', (True, False))
@pytest.mark.parametrize('kind', KINDS)
def test_tapped_maps_keep_their_values(kind, training):
    """No in-place operation of a later layer reaches a map that was returned."""
    backbone = randomise_norms(build(KINDS[kind])).train(training)
    for m in backbone.modules():  # forward must not change the statistics between the two passes
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 0.0
    seen = []
    for m in (backbone.stem, *backbone.stages, backbone.last):
        m.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))
    with torch.no_grad():
        out = backbone(torch.randn(2, 3, 16, 16))
    assert len(out) == len(seen) == len(backbone.stages) + 2
    assert all(torch.equal(a, b) for a, b in zip(out, seen))


@pytest.mark.parametrize('kind', AFTER_RELU)
def test_maps_after_relu(kind):
    with torch.no_grad():
        out = build(KINDS[kind])(torch.randn(2, 3, 16, 16))
    assert all(x.min() >= 0 for x in out)


def test_wrn_maps_are_before_norm_and_relu():
    backbone = randomise_norms(build(KINDS['wrn'])).eval()
    with torch.no_grad():
        *maps, feature = backbone(torch.randn(2, 3, 32, 32))
        assert all(x.min() < 0 for x in maps)
        norm, _ = backbone.last
        assert torch.equal(feature, torch.relu(norm(maps[-1])))


def test_mobilenet_maps_are_without_relu():
    with torch.no_grad():
        stem, *maps, feature = build(KINDS['mobilenet_v2'])(torch.randn(2, 3, 32, 32))
    assert stem.min() >= 0 and feature.min() >= 0
    assert all(x.min() < 0 for x in maps)


def with_pre_activations(kind: str, training: bool = True, size: int = 16) -> tuple[nn.Module, list, list, list]:
    """The backbone, and of one batch the tuple without pre-activations, the same with them, and the pre-activations."""
    plain, giving = (randomise_norms(build(KINDS[kind])).train(training) for _ in range(2))
    giving.load_state_dict(plain.state_dict())
    giving.gives_pre_activations = True
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        before, after = plain(images), giving(images)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), giving.state_dict().values(), strict=True))
    number = len(giving.stages)
    assert len(after) == len(before) + number
    return giving, before, (*after[:number + 1], after[-1]), after[number + 1:-1]


@pytest.mark.parametrize('training', (True, False))
@pytest.mark.parametrize('kind', KINDS)
def test_pre_activations_change_nothing_else(kind, training):
    """Neither feature maps nor feature nor, in training, the statistics of the norms."""
    _, before, after, pre_activations = with_pre_activations(kind, training)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert [x.shape for x in pre_activations] == [x.shape for x in before[1:-1]]


@pytest.mark.parametrize('kind', AFTER_RELU)
def test_relu_of_a_pre_activation_is_the_map(kind):
    _, _, (_, *maps, _), pre_activations = with_pre_activations(kind)
    assert all(pre.min() < 0 and torch.equal(pre.relu(), x) for pre, x in zip(pre_activations, maps, strict=True))


def test_pre_activations_of_shufflenet_v2_have_half_their_channels_before_relu():
    *_, pre_activations = with_pre_activations('shufflenet_v2')
    for pre_activation in pre_activations:               # shuffled: even channels are those that the last unit has kept
        assert pre_activation[:, 0::2].min() >= 0 and pre_activation[:, 1::2].amin((0, 2, 3)).lt(0).float().mean() > 0.5


def test_pre_activations_of_wrn_are_after_the_norm_that_follows():
    backbone, _, (_, *maps, _), pre_activations = with_pre_activations('wrn', training=False)
    norms = [backbone.stages[1][0].bn1, backbone.stages[2][0].bn1, backbone.last[0]]
    with torch.no_grad():
        assert all(torch.equal(pre, norm(x)) for pre, norm, x in zip(pre_activations, norms, maps, strict=True))


def test_pre_activations_of_mobilenet_are_its_maps():
    _, _, (_, *maps, _), pre_activations = with_pre_activations('mobilenet_v2')
    assert all(torch.equal(pre_activation, x) for pre_activation, x in zip(pre_activations, maps, strict=True))


@pytest.mark.parametrize('kind', KINDS)
def test_gradients_through_pre_activations(kind):
    backbone = build(KINDS[kind])
    backbone.gives_pre_activations = True
    *_, feature = out = backbone(torch.randn(2, 3, 8, 8))
    sum(x.square().mean() for x in out).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())
    assert feature.shape[1] == backbone.out_channels


@pytest.mark.parametrize('kind, compiled', [
    *((kind, False) for kind in KINDS), ('resnet', True),
    *(pytest.param(kind, True, marks=pytest.mark.slow) for kind in KINDS if kind != 'resnet')])
def test_an_output_has_pre_activations_once_asked_for(kind, compiled):
    """Also where the backbone has been compiled before."""
    channels = build(KINDS[kind]).out_channels
    network = ImageClassifier(backbone=KINDS[kind], neck=dict(type=GlobalAveragePooling),
                              head=dict(type=LinearClsHead, num_classes=10, in_channels=channels)).eval()
    if compiled:
        torch._dynamo.reset()                             # the limit of recompilations counts over all backbones
        network.backbone.compile(backend='eager', fullgraph=True)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = extract(network, images)
        ask_for_pre_activations(network)
        after = extract(network, images)
    assert before.pre_activations == ()
    assert [x.shape for x in after.pre_activations] == [x.shape for x in after.feature_maps[1:]]
    assert torch.equal(before.logits, after.logits)
    assert all(torch.equal(a, b) for a, b in zip(before.feature_maps, after.feature_maps, strict=True))


@pytest.mark.parametrize('width, channels', ((1.0, 1280), (1.4, 1792)))
def test_mobilenet_widths(width, channels):
    backbone = build(dict(type=MobileNetV2CIFAR, width=width, expansion=2)).eval()
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 32, 32))[-1].shape == (1, channels, 2, 2)


@pytest.mark.parametrize('cfg, message', (
    (dict(type=ResNetCIFAR, depth=18), 'ResNetCIFAR has depth 6n'),
    (dict(type=WRNCIFAR, depth=18), 'WRNCIFAR has depth 6n'),
    (dict(type=WRNCIFAR, depth=4), 'WRNCIFAR has depth 6n'),
    (dict(type=DenseNetCIFAR, depth=42), 'DenseNetCIFAR has depth 6n'),
    (dict(type=VGGCIFAR, depth=16), 'VGGCIFAR has depth 8, 11, 13, got 16'),
))
def test_unknown_depth(cfg, message):
    with pytest.raises(ValueError, match=message) as error:
        cfg['type'](depth=cfg['depth'])
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', [type_.__name__ for type_ in (cfg['type'] for cfg in KINDS.values())])
def test_registered(name):
    assert issubclass(MODELS.get(name), StageBackbone)
    assert issubclass(MODELS.get(f'mmcrrcd.{name}'), StageBackbone)


@pytest.mark.parametrize('kind', KINDS)
def test_fold_keeps_the_logits(kind):
    channels = build(KINDS[kind]).out_channels
    network = randomise_norms(ImageClassifier(
        backbone=KINDS[kind], neck=dict(type=GlobalAveragePooling),
        head=dict(type=LinearClsHead, num_classes=100, in_channels=channels))).eval()
    images = torch.randn(2, 3, 32, 32)
    folded = fold(network, images)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before, after = extract(network, images), extract(folded, images)
    assert (before.logits - after.logits).abs().max() <= 1e-3 * before.logits.abs().max()
    assert len(before.feature_maps) == len(after.feature_maps)
    for a, b in zip(before.feature_maps, after.feature_maps):
        assert (a - b).abs().max() <= 1e-3 * a.abs().max()
    # every kind lists its layers in call order, so none of them has to fall back on the network itself
    assert folded is not network
    norms = [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    if kind == 'wrn':  # the norms after a sum have no convolution to go into
        assert len(norms) == 7
    elif kind == 'densenet':  # nor those after a concatenation: one for each of six layers, two transitions, and the last
        assert len(norms) == 9
    else:
        assert not norms
