"""bfloat16 on a CPU: what torch computes wrongly there is computed in float32."""
import pytest
import torch
from torch import nn

from mmcrrcd.engine.optim_wrapper import BF16OptimWrapper


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('kernel', [3, 5])
@pytest.mark.parametrize('groups', [1, 8])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.skipif(torch.cuda.is_available(), reason='the guard is for machines without a GPU')
def test_the_weight_gradient_on_maps_of_one_pixel_is_that_of_float32(stride, kernel, groups, layout):
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=groups)
    images = torch.randn(4, 8, 1, 1).to(memory_format=layout)
    layer(images).sum().backward()
    expected, layer.weight.grad = layer.weight.grad, None
    wrapper = BF16OptimWrapper(torch.optim.SGD(layer.parameters(), 0.1))
    with wrapper.optim_context(layer):
        layer(images).sum().backward()
    torch.testing.assert_close(layer.weight.grad, expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason='the guard is for machines without a GPU')
def test_all_other_convolutions_stay_in_bfloat16():
    layers = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 1)
    wrapper = BF16OptimWrapper(torch.optim.SGD(layers[0].parameters(), 0.1))
    with wrapper.optim_context(layers[0]):
        assert layers[0](torch.randn(4, 8, 2, 2)).dtype == layers[1](torch.randn(4, 8, 1, 1)).dtype == torch.bfloat16
