"""Views that repeat: crops by a table, pipelines by seeded generators."""
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, pseudo_collate
from mmengine.registry import DefaultScope
from tiny import IMAGES, SIZE, TinyImages, pipeline_loader, write_folder
from torch.utils.data import DataLoader

from mmcrrcd.datasets.replay import CropTable, Crops, EveryView, ReplayedViews, number_of_views
from mmcrrcd.engine import seed_all
from mmcrrcd.errors import InputError
from mmcrrcd.registry import DATASETS


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('images'), seed=0)


def pipeline_data(folder):
    return DATASETS.build(pipeline_loader(folder, training=True)['dataset'])


def images_of(samples) -> torch.Tensor:
    return torch.stack([sample['inputs'] for sample in samples])


@pytest.mark.parametrize('padding, flip, number', [(4, 0.5, 162), (4, 0.0, 81), (0, 0.5, 2), (0, 0.0, 1), (2, 1.0, 50)])
def test_all_views_are_all_crops_and_flips_once(padding, flip, number):
    assert number_of_views('all', padding, flip) == number
    table = CropTable('all', 5, padding, flip, seed=0)
    view = torch.arange(number)
    crops = table(view, torch.zeros_like(view))
    assert len(set(zip(*(part.tolist() for part in crops)))) == number
    assert crops.top.max() <= 2 * padding and crops.left.max() <= 2 * padding
    assert torch.equal(table.view_of(crops), view)


def test_drawn_views_are_the_same_each_time_and_others_for_each_view_image_and_seed():
    def crops(seed: int, view: int, images: int = 4000) -> Crops:
        index = torch.arange(images)
        return CropTable(3, images, 4, 0.5, seed)(torch.full_like(index, view), index)

    one, again, other_view, other_seed = crops(1, 2), crops(1, 2), crops(1, 0), crops(2, 2)
    assert all(map(torch.equal, one, again))
    for other in (other_view, other_seed):
        assert (one.top != other.top).float().mean() == pytest.approx(8 / 9, abs=0.03)
    assert torch.bincount(one.top).float().div(4000).sub(1 / 9).abs().max() < 0.03             # even over the nine places
    assert one.flip.float().mean() == pytest.approx(0.5, abs=0.04)


def test_a_flip_of_probability_zero_or_one_is_kept():
    index = torch.arange(100)
    assert not CropTable(2, 100, 2, 0.0, 0)(index % 2, index).flip.any()
    assert CropTable(2, 100, 2, 1.0, 0)(index % 2, index).flip.all()


def test_each_epoch_shows_the_next_view_and_images_begin_at_different_ones():
    data = ReplayedViews(TinyImages(0), views=5, seed=3)
    seen = []
    for epoch in range(11):
        data.set_epoch(epoch)
        seen.append(data.__getitems__(list(range(IMAGES)))['view'])
    seen = torch.stack(seen)
    assert torch.equal(seen[5], seen[0]) and torch.equal(seen[10], seen[0])
    assert torch.equal((seen[1] - seen[0]) % 5, torch.ones(IMAGES, dtype=torch.int64))
    assert len(seen[0].unique()) > 1
    assert torch.equal(seen[0], ReplayedViews(TinyImages(0), views=5, seed=3).view_of(torch.arange(IMAGES)))


def test_a_pipeline_replays_a_view_whatever_happened_before(folder):
    data = ReplayedViews(pipeline_data(folder), views=4, seed=1)
    first = [data[i] for i in range(IMAGES)]
    seed_all(99)
    again = [data[i] for i in reversed(range(IMAGES))][::-1]
    assert torch.equal(images_of(first), images_of(again))
    data.set_epoch(4)
    assert torch.equal(images_of(first), images_of([data[i] for i in range(IMAGES)]))
    data.set_epoch(1)
    assert not torch.equal(images_of(first), images_of([data[i] for i in range(IMAGES)]))
    assert first[3]['data_samples'].view == int(data.offset[3]) and first[3]['data_samples'].sample_idx == 3


def test_generators_go_on_as_if_nothing_had_been_replayed(folder):
    data = ReplayedViews(pipeline_data(folder), views=4)

    def drawn(between):
        seed_all(1)
        between()
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert drawn(lambda: data[0]) == drawn(lambda: None)


def test_workers_that_outlive_an_epoch_hear_of_it(folder):
    data = ReplayedViews(pipeline_data(folder), views=4)
    loader = DataLoader(data, batch_size=8, num_workers=1, persistent_workers=True, collate_fn=pseudo_collate)
    for epoch in range(3):
        data.set_epoch(epoch)
        views = [sample.view for batch in loader for sample in batch['data_samples']]
        assert views == data.view_of(torch.arange(IMAGES)).tolist()


def test_images_of_joined_data_sets_have_places_of_their_own(folder):
    data = ReplayedViews(ConcatDataset([pipeline_data(folder), pipeline_data(folder)]), views=2)
    assert [data[i]['data_samples'].sample_idx for i in (0, IMAGES, 2 * IMAGES - 1)] == [0, IMAGES, 2 * IMAGES - 1]


@pytest.mark.parametrize('in_memory', [True, False])
def test_every_view_counts_images_view_by_view(folder, in_memory):
    data = ReplayedViews(TinyImages(0) if in_memory else pipeline_data(folder), views=3, seed=2)
    every = EveryView(data, 3)
    assert len(every) == 3 * IMAGES
    found = every.__getitems__([5, 2 * IMAGES + 7])
    if in_memory:
        assert found['view'].tolist() == [0, 2] and found['index'].tolist() == [5, 7]
    else:
        assert [(s['data_samples'].view, s['data_samples'].sample_idx) for s in found] == [(0, 5), (2, 7)]
        data.set_epoch(2 - int(data.offset[7]) + 3)
        assert torch.equal(found[1]['inputs'], data[7]['inputs'])


@pytest.mark.parametrize('settings, expected', [
    (dict(views=0), 'views'), (dict(views=2.5), 'views'), (dict(views='some'), 'views'), (dict(views=2, seed=-1), 'seed'),
    (dict(views=2, seed='a'), 'seed')])
def test_wrong_settings_are_one_line(settings, expected):
    with pytest.raises(InputError, match=expected) as error:
        ReplayedViews(TinyImages(0), **settings)
    assert '\n' not in str(error.value)


def test_the_size_of_images_stays():
    assert ReplayedViews(TinyImages(0), 2).images.shape[1:] == (SIZE, SIZE, 3)
