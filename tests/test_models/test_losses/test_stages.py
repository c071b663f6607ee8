"""Which stages go together where one network gives its stem's feature map and the other, mmpretrain's, does not."""
import pytest
import torch
from distil_step import build
from mmpretrain.models import ResNet_CIFAR
from tiny import SIZE, STUDENT, TEACHER, network

from mmcrrcd.errors import InputError
from mmcrrcd.models import FitNetLoss, FSPLoss, fsp_loss
from mmcrrcd.models.losses.stages import halvings, pair_stages, pair_wide_stages, reductions, stages
from mmcrrcd.models.networks import extract
from mmcrrcd.registry import MODELS
from mmcrrcd.structures import NetworkOutput


def mmpretrains(**settings) -> dict:
    """A ResNet of four stages of 8, 16, 32 and 64 channels, halved before all but the first."""
    backbone = dict(type=ResNet_CIFAR, depth=18, base_channels=8, **settings)
    return dict(STUDENT, backbone=backbone, head=dict(STUDENT['head'], in_channels=64))


ALL = dict(out_indices=(0, 1, 2, 3))


def output(config: dict):
    return extract(MODELS.build(config).eval(), torch.zeros(2, 3, SIZE, SIZE))


def test_the_stem_is_there_in_this_packages_networks_alone():
    ours, theirs = output(STUDENT), output(mmpretrains(**ALL))
    assert ours.has_stem and not theirs.has_stem
    assert [x.shape[1] for x in stages(ours)] == [8, 16, 16] and [x.shape[1] for x in stages(theirs)] == [8, 16, 32, 64]


@pytest.mark.parametrize('student, teacher, expected', [
    (STUDENT, TEACHER, [(1, 1), (2, 2), (3, 3)]),
    (STUDENT, mmpretrains(**ALL), [(1, 0), (2, 1), (3, 2)]),
    (mmpretrains(**ALL), TEACHER, [(0, 1), (1, 2), (2, 3)]),
    (mmpretrains(**ALL), mmpretrains(**ALL), [(0, 0), (1, 1), (2, 2), (3, 3)])])
def test_no_stage_is_taken_for_a_stem(student, teacher, expected):
    assert pair_stages(output(student), output(teacher)) == expected


@pytest.mark.parametrize('student, stages_', [(STUDENT, (2, 1)), (mmpretrains(**ALL), (1, 1))])
def test_the_hint_is_the_second_stage(student, stages_):
    loss = FitNetLoss()
    loss.build(output(student), output(mmpretrains(**ALL)))
    assert loss.pair == stages_


@pytest.mark.parametrize('backbone, stages_', [
    (dict(type='mmcrrcd.ResNetCIFAR', depth=8), 3), (dict(type='mmcrrcd.ShuffleNetV1CIFAR'), 3),
    (dict(type='mmcrrcd.ShuffleNetV2CIFAR'), 3), (dict(type='mmcrrcd.WRNCIFAR', depth=10), 3),
    (dict(type='mmcrrcd.VGGCIFAR', depth=8), 4)], ids=['resnet', 'shufflenet', 'shufflenet_v2', 'wrn', 'vgg'])
def test_odd_sizes_are_paired_as_even_ones(backbone, stages_):
    """With a teacher of the same kind at 32×32 px: stage by stage, whichever way odd feature maps are halved."""
    backbone = MODELS.build(backbone).eval()

    def saw(pixels: int) -> NetworkOutput:
        maps = tuple(backbone(torch.zeros(1, 3, pixels, pixels)))[:-1]      # the last again, for the head
        return NetworkOutput(maps, torch.zeros(1, 1), torch.zeros(1, 1), image_size=(pixels, pixels))

    teacher = saw(32)
    for pixels in range(8, 33):
        assert pair_stages(saw(pixels), teacher) == [(i, i) for i in range(1, 1 + stages_)], pixels


@pytest.mark.parametrize('heights, expected', [
    ((32, 16, 8), [0, 1, 2]), ((32, 30, 28, 14), [0, 0, 0, 1]), ((16, 8, 4, 8, 16), [1, 2, 3, 2, 1]),
    ((12, 6, 3, 1), [1, 2, 3, 4]), ((9, 5, 3, 2), [2, 3, 4, 5]), ((28, 7), [0, 2]), ((32, 4), [0, 3])])
def test_halvings_are_counted_from_map_to_map(heights, expected):
    maps = tuple(torch.zeros(1, 1, height, height) for height in (heights[0], *heights))
    seen = NetworkOutput(maps, torch.zeros(1, 1), torch.zeros(1, 1))
    assert reductions(seen, 32) == expected


def test_one_halving_is_one_whichever_way_it_is_rounded():
    assert all(halvings(height, half) == 1 for height in range(2, 512) for half in {height // 2, (height + 1) // 2})


def test_stages_of_one_pixel_have_no_spread_to_compare():
    maps = [torch.rand(2, 3, pixels, pixels) for pixels in (8, 8, 4, 1)]
    maps_t = [torch.rand(2, 3, pixels, pixels) for pixels in (32, 32, 16, 4)]
    student, teacher = (NetworkOutput(tuple(each), torch.zeros(2, 1), torch.zeros(2, 1), image_size=each[0].shape[2:])
                        for each in (maps, maps_t))
    assert pair_stages(student, teacher) == [(1, 1), (2, 2), (3, 3)] and pair_wide_stages(student, teacher) == [(1, 1), (2, 2)]
    with pytest.raises(InputError, match='feature maps of one pixel$'):
        pair_wide_stages(*(s._replace(feature_maps=(s.feature_maps[0], s.feature_maps[3])) for s in (student, teacher)))


def test_flows_leave_out_the_stem_that_only_one_network_gives():
    s, t = output(network((4, 8, 16, 32))), output(mmpretrains(**ALL))
    t = t._replace(feature_maps=tuple(torch.rand_like(x) for x in t.feature_maps[:3]))
    loss = FSPLoss()
    loss.build(s, t)
    expected = sum(fsp_loss(s.feature_maps[i + 1:i + 3], t.feature_maps[i:i + 2]) for i in range(2))
    assert loss(s, t, None).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize('method', ['AT', 'FitNet', 'FSP'])
def test_the_line_names_out_indices(method):
    with pytest.raises(InputError, match='the stages in its out_indices, by default the last alone$') as error:
        build(dict(type=f'mmcrrcd.{method}Loss'), teacher=mmpretrains())
    assert '\n' not in str(error.value)
    with pytest.raises(InputError) as error:
        build(dict(type='mmcrrcd.FSPLoss'), teacher=TEACHER)
    assert 'out_indices' not in str(error.value)
