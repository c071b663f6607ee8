"""Face networks: their sizes, the embedding at each image size, what an output and a folded teacher have of them."""
import pytest
import torch
from mmcrrcd.errors import InputError
from mmcrrcd.models import CosineHead, EmbeddingNeck, IResNet, extract
from mmcrrcd.models.backbones.base import StageBackbone
from mmcrrcd.models.teachers.frozen import fold
from mmcrrcd.models.networks import ask_for_pre_activations
from mmcrrcd.registry import MODELS
from mmpretrain.models import ImageClassifier, ResNet_CIFAR
from torch import nn

SIZES = {112: 7, 32: 2, 16: 1}


def network(size: int, depth: int = 18, kind: type = IResNet, classes: int = 9) -> ImageClassifier:
    torch.manual_seed(0)
    strides = {} if kind is IResNet else dict(strides=(2, 2, 2, 2), out_indices=(0, 1, 2, 3))
    return MODELS.build(dict(
        type=ImageClassifier, backbone=dict(type=kind, depth=depth, **strides),
        neck=dict(type=EmbeddingNeck, in_channels=2048 if (kind, depth) == (ResNet_CIFAR, 50) else 512, map_size=SIZES[size]),
        head=dict(type=CosineHead, num_classes=classes)))


def slow_number(blocks: tuple[int, ...]) -> int:
    """Parameters of an IResNet with 512 dimensions at 112×112 px, layer by layer; a norm has two a channel, a PReLU one."""
    number = 3 * 64 * 9 + 3 * 64
    before = 64
    for channels, many in zip((64, 128, 256, 512), blocks):
        for i in range(many):
            number += 2 * before + 9 * before * channels + 2 * channels + channels + 9 * channels**2 + 2 * channels
            if i == 0:
                number += before * channels + 2 * channels
            before = channels
    return number + 2 * 512 + 512 * 49 * 512 + 512 + 2 * 512


@pytest.mark.parametrize('depth, published', ((18, 24.03e6), (50, 43.59e6), (100, 65.16e6)))
def test_parameters(depth, published):
    number = sum(p.numel() for part in (IResNet(depth), EmbeddingNeck()) for p in part.parameters())
    assert number == slow_number(IResNet.blocks[depth]) and round(number / 1e6, 2) == published / 1e6


@pytest.mark.parametrize('depth, kind', ((18, IResNet), (50, IResNet), (18, ResNet_CIFAR), (50, ResNet_CIFAR)))
@pytest.mark.parametrize('size', SIZES)
def test_an_output_at_each_size(size, depth, kind):
    model = network(size, depth, kind).eval()
    with torch.no_grad():
        output = extract(model, torch.randn(2, 3, size, size))
    sides = [x.shape[-1] for x in output.feature_maps]
    assert sides[-4:] == [-(-size // 2**i) for i in (1, 2, 3, 4)] and len(sides) == (5 if kind is IResNet else 4)
    assert output.embedding.shape == (2, 512) and output.logits.shape == (2, 9)
    expected = torch.cosine_similarity(output.embedding[:, None], model.head.weight, dim=-1)
    torch.testing.assert_close(output.logits, 64 * expected, rtol=1e-4, atol=1e-4)


def test_trains_at_16_pixels_and_under_autocast():
    model = network(16).train()
    with torch.autocast('cpu', torch.bfloat16):
        output = extract(model, torch.randn(4, 3, 16, 16))
    assert output.embedding.dtype == output.logits.dtype == torch.float32
    model.head.loss_module(output.logits, torch.tensor([0, 8, 3, 3])).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == ['neck.last_norm.weight']
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_block_is_bn_conv_bn_prelu_conv_bn_and_the_sum():
    block = IResNet(18).stages[1][0].eval()
    for m in block.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean)
            nn.init.uniform_(m.weight)
    x = torch.randn(2, 64, 8, 8)

    def norm(bn: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        return (x - bn.running_mean[:, None, None]) * scale[:, None, None] + bn.bias[:, None, None]

    with torch.no_grad():
        inner = norm(block.bn2, nn.functional.conv2d(norm(block.bn1, x), block.conv1.weight, padding=1))
        inner = torch.where(inner > 0, inner, 0.25 * inner)
        inner = norm(block.bn3, nn.functional.conv2d(inner, block.conv2.weight, stride=2, padding=1))
        shortcut = norm(block.downsample[1], nn.functional.conv2d(x, block.downsample[0].weight, stride=2))
        torch.testing.assert_close(block(x), inner + shortcut)


def test_pre_activations_are_its_maps():
    model = network(32).eval()
    ask_for_pre_activations(model)
    with torch.no_grad():
        output = extract(model, torch.randn(2, 3, 32, 32))
    assert len(output.pre_activations) == 4
    assert all(torch.equal(a, b) for a, b in zip(output.pre_activations, output.feature_maps[1:]))
    assert isinstance(model.backbone, StageBackbone) and output.feature_maps[-1].min() < 0


def test_fold_keeps_the_answers():
    """The norm after each convolution goes; that before the first one of a block, and the neck's, stay."""
    model = network(32)
    for m in model.modules():
        if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm1d)):
            nn.init.uniform_(m.running_var, 0.7, 1.5)
            nn.init.normal_(m.running_mean, 0, 0.3)
    images = torch.randn(2, 3, 32, 32)
    folded = fold(model.eval(), images)
    assert folded is not model
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == 8 + 1
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before, after = extract(model, images), extract(folded, images)
    for a, b in ((before.embedding, after.embedding), (before.logits, after.logits)):
        assert (a - b).abs().max() <= 1e-3 * a.abs().max()


def test_the_neck():
    neck = EmbeddingNeck(in_channels=3, map_size=2, embed_dim=4, dropout=0.5).eval()
    x = torch.randn(5, 3, 2, 2)
    with torch.no_grad():
        y, = neck((None, x))
        flat = (x / (1 + 1e-5)**0.5).flatten(1)
        torch.testing.assert_close(y, (flat @ neck.linear.weight.T + neck.linear.bias) / (1 + 1e-5)**0.5)
    neck.train()
    (a, ), (b, ) = neck((x, )), neck((x, ))
    assert not torch.equal(a, b)                          # dropout
    torch.testing.assert_close(a.mean(0), torch.zeros(4), rtol=0, atol=1e-5)


@pytest.mark.parametrize('make, message', [
    (lambda: IResNet(34), 'IResNet has depth 18, 50, 100, got 34'),
    (lambda: network(112)(torch.zeros(2, 3, 16, 16)), 'the neck is for feature maps of 7 x 7, the backbone gives 1 x 1')])
def test_what_does_not_fit(make, message):
    with pytest.raises(InputError, match=message) as error:
        make()
    assert '\n' not in str(error.value)
