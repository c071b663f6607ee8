"""The reduction of the resolution, against Pillow and plain loops."""
import numpy as np
import pytest
import torch
from mmcrrcd.datasets import ResolutionPair, downsample
from mmcrrcd.errors import InputError
from mmcrrcd.registry import TRANSFORMS
from mmpretrain.datasets.transforms import PackInputs
from PIL import Image

FILTERS = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}


def random_images(height: int = 32, width: int = 32, number: int = 3, low: int = 0, high: int = 256) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(low, high, size=(number, 3, height, width), dtype=np.uint8))


def pillow(images: torch.Tensor, size: tuple[int, int], interpolation: str) -> torch.Tensor:
    resized = [np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size[::-1], FILTERS[interpolation]))
               for image in images]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


def difference(a: torch.Tensor, b: torch.Tensor) -> int:
    assert a.shape == b.shape
    return (a.int() - b.int()).abs().max().item()


@pytest.mark.parametrize('size', (8, 16, 12, (7, 20), 1))
def test_bilinear_is_what_pillow_gives(size):
    images = random_images()
    small = downsample(images, size)
    assert small.dtype == torch.uint8
    assert difference(small, pillow(images, (size, size) if isinstance(size, int) else size, 'bilinear')) <= 1


def test_bicubic_is_what_pillow_gives():
    images = random_images(low=90, high=160)             # far from 0 and 255, where Pillow cuts off between its two passes
    assert difference(downsample(images, 8, 'bicubic'), pillow(images, (8, 8), 'bicubic')) <= 1


def test_bilinear_without_antialias_looks_at_four_pixels():
    images = random_images(20, 32)
    small = downsample(images, (8, 12), antialias=False)
    expected = np.empty((3, 3, 8, 12))
    for i in range(8):
        for j in range(12):
            y, x = (i + 0.5) * 20 / 8 - 0.5, (j + 0.5) * 32 / 12 - 0.5
            top, left = int(y), int(x)
            window = images[:, :, top:top + 2, left:left + 2].numpy().astype(float)
            weights = np.outer([1 - (y - top), y - top], [1 - (x - left), x - left])
            expected[:, :, i, j] = (window * weights).sum((2, 3))
    assert np.abs(small.numpy() - expected).max() <= 0.5 + 1e-3


def test_only_antialias_sees_every_pixel():
    stripes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    stripes[..., ::8, :] = 255
    assert downsample(stripes, 4, antialias=False).eq(0).all()
    assert downsample(stripes, 4).float().mean() == pytest.approx(255 / 8, rel=0.1)


def test_area_is_the_mean_of_blocks():
    images = random_images()
    blocks = images.numpy().reshape(3, 3, 8, 4, 8, 4).astype(float).mean((3, 5))
    assert np.array_equal(downsample(images, 8, 'area').numpy(), np.round(blocks))


def test_area_of_a_factor_that_is_no_whole_number():
    images = random_images()
    expected = np.empty((3, 3, 12, 12))
    for i in range(12):
        for j in range(12):
            rows, columns = (slice(k * 32 // 12, -(-(k + 1) * 32 // 12)) for k in (i, j))
            expected[:, :, i, j] = images.numpy()[:, :, rows, columns].astype(float).mean((2, 3))
    assert np.abs(downsample(images, 12, 'area').numpy() - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize('side', (8, 12, 20))
def test_nearest_takes_the_pixel_under_the_center(side):
    images = random_images()
    at = [int((i + 0.5) * 32 / side) for i in range(side)]
    assert torch.equal(downsample(images, side, 'nearest'), images[:, :, at][:, :, :, at])


def test_upsample_scales_the_rounded_small_image_up():
    images = random_images(24, 32)
    upsampled = downsample(images, (6, 8), upsample=True)
    assert difference(upsampled, pillow(downsample(images, (6, 8)), (24, 32), 'bilinear')) <= 1
    blocks = downsample(images, (6, 8), 'nearest', upsample=True)
    assert torch.equal(blocks, downsample(images, (6, 8), 'nearest').repeat_interleave(4, 2).repeat_interleave(4, 3))


def test_values_are_rounded_and_stay_in_range():
    pair = torch.tensor([[10, 11], [11, 11]], dtype=torch.uint8).expand(1, 3, 2, 2)
    assert downsample(pair, 1, 'area').unique().tolist() == [11]                      # 10.75
    edge = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    edge[..., 13:] = 255
    small = downsample(edge, 8, 'bicubic')[0, 0, 0]                                   # which overshoots
    assert small[0] == small[1] == 0 and small[-1] == small[-2] == 255
    assert torch.equal(downsample(edge, 32), edge)


def test_transform_is_the_same_function_one_image_at_a_time():
    images = random_images()
    batched = downsample(images, 8)
    transform = TRANSFORMS.build(dict(type='mmcrrcd.ResolutionPair', resolution=8))
    for image, expected in zip(images, batched):
        img = image.permute(1, 2, 0).numpy()
        results = transform(dict(img=img, gt_label=1))
        assert results['img'] is img
        assert torch.equal(results['img_low'], expected)


def test_transform_takes_the_view_that_a_flip_leaves():
    img = random_images()[0].permute(1, 2, 0).numpy()
    flipped = ResolutionPair(8)(dict(img=img[:, ::-1]))['img_low']
    assert torch.equal(flipped, ResolutionPair(8)(dict(img=img[:, ::-1].copy()))['img_low'])
    assert not torch.equal(flipped, ResolutionPair(8)(dict(img=img))['img_low'])


def test_the_low_image_is_packed():
    img = random_images()[0].permute(1, 2, 0).numpy()
    results = ResolutionPair(8)(dict(img=img, gt_label=1))
    packed = PackInputs(algorithm_keys=('img_low',))(dict(results))
    assert torch.equal(packed['data_samples'].img_low, results['img_low'])
    assert packed['inputs'].shape == (3, 32, 32)


@pytest.mark.parametrize('settings, message', [
    (dict(resolution=0), 'resolution is a number of pixels (or a height and a width), got 0'),
    (dict(resolution=8.5), 'resolution is a number of pixels (or a height and a width), got 8.5'),
    (dict(resolution='8'), "resolution is a number of pixels (or a height and a width), got '8'"),
    (dict(resolution=True), 'resolution is a number of pixels (or a height and a width), got True'),
    (dict(resolution=(8, -8)), 'resolution is a number of pixels (or a height and a width), got (8, -8)'),
    (dict(resolution=(8, 8, 8)), 'resolution is a number of pixels (or a height and a width), got (8, 8, 8)'),
    (dict(resolution=8, interpolation='lanczos'),
     "interpolation is one of bilinear, bicubic, area, nearest, got 'lanczos'"),
])
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(InputError) as error:
        ResolutionPair(**settings)
    assert str(error.value) == message


def test_normalized_images_are_refused():
    with pytest.raises(InputError, match='takes uint8 images, before any normalization; got float32') as error:
        ResolutionPair(8)(dict(img=np.zeros((32, 32, 3), np.float32)))
    assert '\n' not in str(error.value)


def test_repr_shows_the_settings():
    assert repr(ResolutionPair(8, antialias=False)) == (
        "ResolutionPair(resolution=8, interpolation='bilinear', antialias=False, upsample=False)")
