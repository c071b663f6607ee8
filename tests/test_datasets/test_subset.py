"""Parts of data sets."""
import pytest

import tiny
from mmcrrcd.datasets.subset import SubsetArrays
from mmcrrcd.errors import InputError


def part(**settings) -> SubsetArrays:
    return SubsetArrays(dict(type='mmcrrcd.TinyImages', seed=1), **settings)


def test_parts_of_a_data_set():
    images = tiny.random_images(1)[0]

    def kept(data: SubsetArrays) -> list[int]:
        """Positions of its images in the whole."""
        return [int((images == image.numpy()).all((1, 2, 3)).argmax()) for image in data.images]

    assert kept(part()) == list(range(tiny.IMAGES))
    assert kept(part(images_per_class=2)) == list(range(2 * tiny.CLASSES))       # classes follow each other in the tiny images
    train, out = part(holdout=8), part(holdout=8, part='holdout')
    assert sorted([*kept(train), *kept(out)]) == list(range(tiny.IMAGES))
    assert out.labels.bincount().tolist() == [2] * tiny.CLASSES
    both = part(holdout=8, images_per_class=3)
    assert set(kept(both)) <= set(kept(train)) and both.labels.bincount().tolist() == [3] * tiny.CLASSES
    assert kept(out) != kept(part(holdout=8, part='holdout', seed=1))
    assert out.__getitems__([1, 3])['index'].tolist() == [1, 3]                  # of these images


@pytest.mark.parametrize('settings', [dict(holdout=7), dict(holdout=24), dict(images_per_class=7), dict(images_per_class=0),
                                      dict(part='holdout'), dict(part='test')])
def test_parts_that_cannot_be(settings):
    with pytest.raises(InputError):
        part(**settings)
