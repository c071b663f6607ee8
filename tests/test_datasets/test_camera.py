"""Blur, noise and JPEG of the student's images: against Pillow and plain loops, and the same in both pipelines."""
import io
import math

import numpy as np
import pytest
import torch
from mmcrrcd.datasets import ResolutionPair, StudentView, downsample
from mmcrrcd.datasets.transforms.camera import gaussian_blur, jpeg_compress
from mmcrrcd.errors import InputError
from mmcrrcd.models import PairPreprocessor
from PIL import Image


def photos(number: int = 4, side: int = 32) -> torch.Tensor:
    """(N, 3, side, side) uint8: smooth colors with edges in them."""
    y, x = np.mgrid[:side, :side] / side
    images = [np.stack([128 + 100 * np.sin(6 * x + i), 255 * (x + y > 1 + i / 9), 255 * y], -1) for i in range(number)]
    return torch.from_numpy(np.stack(images).clip(0, 255).astype(np.uint8)).permute(0, 3, 1, 2)


@pytest.mark.parametrize('quality', (10, 50, 90))
@pytest.mark.parametrize('side', (16, 13))
def test_jpeg_is_nearly_what_pillow_writes(side, quality):
    small, expected = downsample(photos(), side), []
    for image in small:
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, 'JPEG', quality=quality)
        expected.append(np.asarray(Image.open(file)))
    expected = torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2).float()
    found = jpeg_compress(small.float(), quality).round().clamp(0, 255)
    assert (found - expected).abs().mean() < 2 < (small - expected).abs().mean()


def test_blur_is_a_gaussian_mean_of_the_neighbors():
    image = photos(1)[:, :1].float()
    weights = [math.exp(-i * i / (2 * 0.8**2)) for i in range(-3, 4)]
    padded, expected = np.pad(image[0, 0].numpy(), 3, mode='edge'), np.zeros((32, 32))
    for i in range(32):
        for j in range(32):
            expected[i, j] = (padded[i:i + 7, j:j + 7] * np.outer(weights, weights)).sum() / sum(weights)**2
    np.testing.assert_allclose(gaussian_blur(image, 0.8)[0, 0].numpy(), expected, atol=1e-3)


def test_noise_has_its_standard_deviation_and_repeats_in_tests_only():
    images = torch.full((50, 3, 32, 32), 128, dtype=torch.uint8)
    preprocessor = PairPreprocessor([0.] * 3, [1.] * 3, resolution=16, noise=6)
    first, second = (preprocessor(dict(inputs=images))['inputs'].low for _ in range(2))
    assert first.equal(second)
    assert first.std().item() == pytest.approx(6, rel=0.03)
    high, low = preprocessor(dict(inputs=images), training=True)['inputs']
    assert high.std() == 0 and not low.equal(first) and low.std().item() == pytest.approx(6, rel=0.03)


def test_the_mmpretrain_pipeline_makes_the_same_images_and_repeats_the_noise_of_an_image():
    images, how = photos(2), dict(resolution=8, blur=0.7, jpeg=60)
    preprocessor = PairPreprocessor([0.] * 3, [1.] * 3, **how)
    low = preprocessor(dict(inputs=images))['inputs'].low
    for image, expected in zip(images, low):
        given = image.permute(1, 2, 0).numpy()
        assert ResolutionPair(**how)(dict(img=given))['img_low'].float().equal(expected)
        noisy = [ResolutionPair(noise=9, **how)(dict(img=given))['img_low'] for _ in range(2)]
        assert noisy[0].equal(noisy[1]) and not noisy[0].float().equal(expected)


def test_images_from_a_small_camera_are_degraded_no_further():
    view, how = StudentView(8, 32, blur=1.0), dict(img_shape=None)
    small = photos(1, 8)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(view(dict(img=small, **how))['img'], small)
    large = photos(1)
    seen = view(dict(img=large[0].permute(1, 2, 0).numpy(), **how))['img']
    assert torch.from_numpy(seen).permute(2, 0, 1).equal(downsample(large, 8, blur=1.0)[0])
    assert str(view).endswith('(bilinear, antialiased, blur 1.0)')


@pytest.mark.parametrize('settings, message', [
    (dict(resolution=8, blur=-1), 'blur is a number from 0 to 255, got -1'),
    (dict(resolution=8, blur=1e30), 'blur is a number from 0 to 255'),
    (dict(resolution=8, noise='much'), 'noise is a number from 0 to 255'),
    (dict(resolution=8, jpeg=0), 'jpeg is a quality from 1 to 100'),
    (dict(noise=3), 'say their resolution'),
    (dict(crop_scale=(0.5, 2)), 'crop_scale is the least and the largest share'),
    (dict(crop_scale=(0.5, 1), padding=4), 'by padding or by crop_scale'),
])
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(InputError, match=message):
        PairPreprocessor([0.] * 3, [1.] * 3, **settings)
