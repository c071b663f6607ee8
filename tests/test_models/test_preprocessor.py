"""From a uint8 batch to the pair: crops and flips against a plain loop, and the two data paths against each other."""
import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcrrcd.datasets import ImageArrays, ResolutionPair, downsample, whole_batch
from mmcrrcd.datasets.replay import Crops
from mmcrrcd.errors import InputError
from mmcrrcd.models import CRRCD, PairPreprocessor, ResNetCIFAR, crop_and_flip
from mmcrrcd.structures import Batch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmpretrain.datasets.transforms import PackInputs, RandomCrop
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader

PIPELINE = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets' / 'cifar100_mmpretrain.py'
SIZE = 8
MEAN, STD = [129.31, 124.11, 112.40], [68.21, 65.41, 70.41]


def random_images(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))


def plain(mean=(0, 0, 0), std=(1, 1, 1), **settings) -> PairPreprocessor:
    """A preprocessor whose output is the images themselves, as float."""
    return PairPreprocessor(mean=mean, std=std, **settings)


def batch_of(images: torch.Tensor) -> dict:
    return dict(inputs=images, labels=torch.arange(len(images)), index=torch.arange(len(images)) + 100)


@pytest.mark.parametrize('padding', (0, 1, 4))
def test_crop_and_flip_is_padding_slicing_and_mirroring(padding):
    images = random_images(20, 3, 6, 9)
    rng = np.random.default_rng(1)
    top, left = rng.integers(2 * padding + 1, size=(2, 20))
    flip = rng.random(20) < 0.5
    out = crop_and_flip(images, Crops(*map(torch.from_numpy, (top, left, flip))), padding)
    assert out.dtype == torch.uint8 and out.shape == images.shape
    for i, image in enumerate(images.numpy()):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        window = padded[:, top[i]:top[i] + 6, left[i]:left[i] + 9]
        assert np.array_equal(out[i].numpy(), window[:, :, ::-1] if flip[i] else window)


def test_every_crop_and_both_directions_are_drawn():
    """One bright pixel, its place in every crop: all 9 offsets of padding 1, with and without the mirror."""
    image = torch.zeros(1, 3, 4, 6, dtype=torch.uint8)
    image[..., 2, 3] = 255
    torch.manual_seed(0)
    out = plain(padding=1, flip=0.3)(batch_of(image.expand(4_000, 3, 4, 6)), training=True)['inputs'].high
    rows, columns = out[:, 0].flatten(1).argmax(1).div(6, rounding_mode='floor'), out[:, 0].flatten(1).argmax(1) % 6
    assert out.sum((1, 2, 3)).eq(3 * 255).all()          # never lost, never doubled
    for row in (1, 2, 3):
        assert rows.eq(row).float().mean() == pytest.approx(1 / 3, abs=0.04)
    # unflipped at columns 2, 3, 4 and flipped at 3, 2, 1: only at 4 it was surely not mirrored, only at 1 it was
    assert columns.eq(4).float().mean() == pytest.approx(0.7 / 3, abs=0.04)
    assert columns.eq(1).float().mean() == pytest.approx(0.3 / 3, abs=0.04)
    assert sorted(columns.unique().tolist()) == [1, 2, 3, 4]


def test_images_stay_as_they_are_outside_training():
    images = random_images(5, 3, 8, 8)
    data = plain(padding=2, flip=0.5)(batch_of(images))
    assert data['inputs'].high is None
    assert torch.equal(data['inputs'].low, images.float())
    assert isinstance(data['data_samples'], Batch)
    assert data['data_samples'].labels.tolist() == [0, 1, 2, 3, 4]
    assert data['data_samples'].index.tolist() == [100, 101, 102, 103, 104]


@pytest.mark.parametrize('training', [True, False])
def test_an_image_of_another_size_is_named(training):
    images = [random_images(3, 6, 6), random_images(3, 6, 6), random_images(3, 4, 9)]
    samples = [DataSample(metainfo=dict(img_path=f'{name}.png')) for name in 'abc']
    with pytest.raises(InputError, match="several sizes, a.png of 6 x 6 pixels and c.png of 4 x 9 pixels"):
        plain()(dict(inputs=images, data_samples=samples), training)


def test_the_normal_form():
    images = random_images(2, 3, 4, 4)
    high = plain(MEAN, STD)(batch_of(images), training=True)['inputs'].high
    expected = (images.numpy().astype(np.float64) - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    assert np.abs(high.numpy() - expected).max() < 1e-5
    assert high.dtype == torch.float32 and high.is_contiguous(memory_format=torch.channels_last)


def test_to_rgb_swaps_the_channels_of_both_before_the_mean():
    images = random_images(2, 3, 8, 8)
    swapped = plain(MEAN, STD, to_rgb=True, resolution=4)(batch_of(images.flip(1)), training=True)['inputs']
    straight = plain(MEAN, STD, resolution=4)(batch_of(images), training=True)['inputs']
    assert torch.equal(swapped.high, straight.high) and torch.equal(swapped.low, straight.low)


@pytest.mark.parametrize('downsampling', (dict(), dict(interpolation='area'), dict(antialias=False), dict(upsample=True)))
@pytest.mark.parametrize('training', (True, False))
def test_low_is_high_at_the_resolution(training, downsampling):
    images = random_images(3, 3, 16, 16)
    torch.manual_seed(0)
    pair = plain(resolution=4, padding=2, flip=0.5, **downsampling)(batch_of(images), training=training)['inputs']
    high = pair.high.to(torch.uint8) if training else images
    assert torch.equal(pair.low, downsample(high, 4, **downsampling).float())
    assert pair.low.shape[-1] == (16 if 'upsample' in downsampling else 4)
    assert training != torch.equal(high, images)


def test_one_resolution_is_normalized_once():
    pair = plain(MEAN, STD)(batch_of(random_images(2, 3, 8, 8)), training=True)['inputs']
    assert pair.low is pair.high


def network(width: int) -> dict:
    return dict(type=ImageClassifier, neck=dict(type=GlobalAveragePooling),
                backbone=dict(type=ResNetCIFAR, depth=8, widths=(8, 8, 8, width)),
                head=dict(type=LinearClsHead, num_classes=10, in_channels=width, init_cfg=None))


def piped_batch(images, labels, top, left, flip, where: str, resolution: int | None) -> dict:
    """The images through the pipeline of the config for mmpretrain's pipeline, with given crops and flips."""
    steps = list(Config.fromfile(PIPELINE).train_dataloader.dataset.pipeline)
    if where == 'pipeline' and resolution:
        steps.insert(-1, dict(type=ResolutionPair, resolution=resolution))
    pipeline = Compose(steps)
    crop, mirror = pipeline.transforms[:2]
    assert isinstance(crop, RandomCrop)
    samples = []
    for i, image in enumerate(images):
        crop.rand_crop_params = lambda img, i=i: (int(top[i]), int(left[i]), 32, 32)
        mirror._choose_direction = lambda i=i: 'horizontal' if flip[i] else None
        samples.append(pipeline(dict(img=image, gt_label=int(labels[i]), sample_idx=i)))
    return pseudo_collate(samples)


@pytest.mark.parametrize('sampling', ('supervised', 'unsupervised'))
@pytest.mark.parametrize('resolution, where', ((None, 'pipeline'), (8, 'pipeline'), (8, 'preprocessor')))
def test_pipeline_and_in_memory_path_give_the_same_losses(resolution, where, sampling):
    images = random_images(SIZE, 32, 32, 3).numpy()
    rng = np.random.default_rng(1)
    labels = rng.integers(10, size=SIZE)
    top, left = rng.integers(9, size=(2, SIZE))
    flip = np.arange(SIZE) % 2 == 0
    torch.manual_seed(0)
    settings = dict(type=PairPreprocessor, mean=MEAN, std=STD, padding=4, flip=0.5)
    model = CRRCD(student=network(8), teacher=network(16), num_negatives=32, sampling=sampling,
                  data_preprocessor=dict(settings, resolution=resolution))
    model.init_weights()
    model.losses.rcd.queue.push(torch.randn(32, 16), torch.arange(32) % 10)
    in_memory_model, piped_model = model.train(), copy.deepcopy(model)

    in_memory_model.data_preprocessor.draw = lambda *_: (Crops(*map(torch.from_numpy, (top, left, flip))), None)
    loader = DataLoader(ImageArrays(images, labels, [str(i) for i in range(10)], 'here'), SIZE, collate_fn=whole_batch)
    in_memory = in_memory_model.data_preprocessor(next(iter(loader)), training=True)
    if where == 'pipeline':
        piped_model.data_preprocessor.resolution = None      # the low-resolution images come with the samples
    piped = piped_model.data_preprocessor(
        piped_batch(images, labels, top, left, flip, where, resolution), training=True)

    assert piped['inputs'].low.shape[-1] == (resolution or 32)
    assert torch.equal(piped['inputs'].high, in_memory['inputs'].high)
    assert torch.equal(piped['inputs'].low, in_memory['inputs'].low)
    of_in_memory = in_memory_model(**in_memory, mode='loss')
    of_piped = piped_model(**piped, mode='loss')
    assert of_in_memory.keys() == of_piped.keys() >= {'loss_cls', 'loss_kd', 'loss_rcd'}
    for name, value in of_in_memory.items():
        # the same numbers in the same order: nothing but the last bit may differ
        assert torch.allclose(value, of_piped[name], rtol=1e-6, atol=0), name
    assert of_in_memory['loss_rcd'] > 0 and of_in_memory['loss_kd'] > 0
    assert torch.equal(in_memory_model.losses.rcd.queue.key, piped_model.losses.rcd.queue.key)


def test_mmpretrain_pipeline_needs_no_crop_of_its_own():
    """Its images are augmented already: the preprocessor's padding and flip are for whole batches."""
    images = [random_images(3, 8, 8) for _ in range(4)]
    data = plain(padding=4, flip=1.0)(dict(inputs=images), training=True)
    assert torch.equal(data['inputs'].high, torch.stack(images).float())
    assert data['data_samples'] is None


@pytest.mark.parametrize('settings, message', [
    (dict(mean=(1, 2)), 'mean of a PairPreprocessor is three numbers'), (dict(mean=127.5), 'mean .* is three numbers'),
    (dict(std=(1, 1, 'b')), 'std of a PairPreprocessor is three numbers'), (dict(std=(1, 0, 1)), 'std .* is positive'),
    (dict(padding='4'), "padding is a number of pixels, got '4'"), (dict(padding=-1), 'padding is a number of pixels, got -1'),
    (dict(padding=True), 'padding is a number'), (dict(flip=5), 'flip is a probability, from 0 to 1, got 5'),
    (dict(flip='0.5'), 'flip is a probability'), (dict(resolution=True), 'resolution is a number of pixels')])
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        plain(**settings)


@pytest.mark.parametrize('training', (True, False))
def test_low_images_of_another_size_than_the_resolution_are_refused(training):
    def samples(**settings):
        pipeline = Compose([dict(type=ResolutionPair, **settings), dict(type=PackInputs, algorithm_keys=('img_low', ))])
        image = random_images(16, 16, 3).numpy()
        return pseudo_collate([pipeline(dict(img=image, gt_label=0)) for _ in range(2)])

    assert plain(resolution=4)(samples(resolution=4), training)['inputs'].low.shape == (2, 3, 4, 4)
    low = plain(resolution=4, upsample=True)(samples(resolution=4, upsample=True), training)['inputs'].low
    assert low.shape[2:] == (16, 16)
    assert plain()(samples(resolution=4), training)['inputs'].low.shape == (2, 3, 4, 4)
    for settings in (dict(resolution=8), dict(resolution=4, upsample=True), dict(resolution=(4, 8))):
        with pytest.raises(InputError, match='img_low of .* pixels, and resolution=4 of the data_preprocessor makes it 4 x 4$'):
            plain(resolution=4)(samples(**settings), training)
