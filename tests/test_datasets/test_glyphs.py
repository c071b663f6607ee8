import numpy as np
import pytest
import torch

from mmcrrcd.datasets import GlyphArrays, ImageArrays
from mmcrrcd.datasets.glyphs import CLASSES, draw_image, draw_split, letter_mask
from mmcrrcd.registry import DATASETS


@pytest.fixture(autouse=True)
def nothing_kept():
    draw_split.cache_clear()


def test_the_same_bytes_on_each_call():
    first = GlyphArrays('train', num_images=60)
    draw_split.cache_clear()
    np.random.seed(1)                                    # the global state has no say
    again = GlyphArrays('train', num_images=60)
    assert first.images is not again.images
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)


def test_splits_and_seeds_share_no_image():
    sets = [GlyphArrays(split, 60, seed) for split in ('train', 'test') for seed in (0, 1)]
    assert len({image.numpy().tobytes() for one in sets for image in one.images}) == 4 * 60


@pytest.mark.parametrize('num_images', [80, 100])
def test_labels_are_balanced_and_shuffled(num_images):
    labels = GlyphArrays('test', num_images).labels
    counts = labels.bincount(minlength=40)
    assert counts.sum() == num_images and counts.max() - counts.min() <= 1
    assert len(labels[:40].unique()) < 40


def test_shapes_classes_and_registry():
    glyphs = DATASETS.build(dict(type='mmcrrcd.GlyphArrays', split='test', num_images=5))
    assert isinstance(glyphs, ImageArrays)
    assert glyphs.images.shape == (5, 32, 32, 3) and glyphs.images.dtype == torch.uint8
    assert len(set(CLASSES)) == 40 and glyphs.metainfo['classes'] == tuple(CLASSES)


def test_the_letter_of_the_label_is_in_the_image():
    # Averaged over many images, the ink of one letter in the middle covers what its own mask covers.
    def ink(character, rng):
        image = draw_image(CLASSES.index(character), rng).astype(float)
        ground = np.median(image, axis=(0, 1))
        return np.abs(image - ground).sum(2)[8:24, 8:24]

    rng = np.random.default_rng(0)
    for character in 'LTn':
        mean = np.mean([ink(character, rng) for _ in range(150)], axis=0).ravel()
        similar = {other: np.corrcoef(mean, np.mean([np.asarray(letter_mask(other, 23, a, x, y), float)[8:24, 8:24]
                                                     for a in (-15, 0, 15) for x in (14, 16, 18) for y in (14, 16, 18)],
                                                    axis=0).ravel())[0, 1]
                   for other in CLASSES}
        assert character in sorted(similar, key=similar.get)[-3:]     # of 40; blurred, a T is much like an f


def test_wrong_arguments_say_what_was_expected():
    with pytest.raises(ValueError, match="split is 'train' or 'test', got 'val'"):
        GlyphArrays('val')
    with pytest.raises(ValueError, match='the split is empty'):
        GlyphArrays('test', num_images=0)
