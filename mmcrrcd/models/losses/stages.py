"""Which stage of the student goes with which of the teacher."""
import math
from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.structures import NetworkOutput


def stages(output: NetworkOutput) -> tuple[Tensor, ...]:
    """The feature maps without the stem's."""
    return output.feature_maps[int(output.has_stem):]


def reductions(output: NetworkOutput, image_height: int) -> list[int]:
    """How often the map of each stage has been halved since the image.

    Counted from map to map. An odd height is rounded up or down each time it is halved. Over several feature maps, from 13 to
    1, say, that can add up to a halving. Not known is how often the first feature map was halved since an odd image, nor what
    became of a map of one pixel.
    """
    heights = [stage.shape[2] for stage in stages(output)]
    counts = [round(math.log2(image_height / heights[0]))] if heights else []
    for before, after in pairwise(heights):
        counts.append(counts[-1] + (halvings(before, after) if after <= before else -halvings(after, before)))
    return counts


def halvings(before: int, after: int) -> int:
    """How many lead from one height to a smaller one. A single one leaves from a third, of 3, to two thirds of it."""
    return 0 if 3 * after > 2 * before else max(1, math.floor(math.log2(before / after) + 0.35))


def hint(*outputs: NetworkOutput) -> str:
    """What to do about a network that gives too few feature maps, '' where nothing helps."""
    if any(len(output.feature_maps) == 1 and not output.has_stem for output in outputs):
        return '; a backbone of mmpretrain gives the feature maps of the stages in its out_indices, by default the last alone'
    return ''


def pair_stages(student: NetworkOutput, teacher: NetworkOutput) -> list[tuple[int, int]]:
    """Positions in ``student.feature_maps`` and ``teacher.feature_maps`` of the stages that have reduced their image equally.

    The stem's feature map is left out, where there is one. Where both networks have as many stages at one reduction these go
    one by one, otherwise the last of each. So networks of one family are paired stage by stage, as in the published code.
    Others are paired by what their feature maps show of the image, which also holds where the student's image is smaller than
    the teacher's. VGG is an
    exception: its fourth pooling is there for 64×64 px only, so of 64 and 8 the student's fourth stage goes with the third.

    Raises:
        InputError: no two stages fit, for instance where a network gives no feature maps.
    """
    heights = [output.image_size[0] if output.image_size else None for output in (student, teacher)]
    if None in heights:                                  # equal images, then
        heights = [max((m.shape[2] for s in (student, teacher) for m in s.feature_maps), default=1)] * 2
    of_student, of_teacher = reductions(student, heights[0]), reductions(teacher, heights[1])
    pairs = []
    for reduction in sorted(set(of_student) & set(of_teacher)):
        ours = [i for i, r in enumerate(of_student, int(student.has_stem)) if r == reduction]
        theirs = [i for i, r in enumerate(of_teacher, int(teacher.has_stem)) if r == reduction]
        pairs += zip(ours, theirs, strict=True) if len(ours) == len(theirs) else [(ours[-1], theirs[-1])]
    if not pairs:
        ours, theirs = ([tuple(x.shape[1:]) for x in output.feature_maps] for output in (student, teacher))
        raise InputError(f'no stages to compare: the feature maps of the student are {ours}, of the teacher {theirs}'
                         f'{hint(student, teacher)}')
    return pairs


def pair_wide_stages(student: NetworkOutput, teacher: NetworkOutput) -> list[tuple[int, int]]:
    """Those of :func:`pair_stages` whose feature maps both have more than one pixel, for what compares how a map spreads over
    them: there is nothing to compare, and no gradient, in VGG8's last two stages of an image of 8.

    Raises:
        InputError: there are none.
    """
    pairs = [(i, j) for i, j in pair_stages(student, teacher)
             if min(student.feature_maps[i][0, 0].numel(), teacher.feature_maps[j][0, 0].numel()) > 1]
    if not pairs:
        raise InputError('no stages to compare: all that go together have feature maps of one pixel')
    return pairs


def same_size(student_map: Tensor, teacher_map: Tensor) -> tuple[Tensor, Tensor]:
    """Both feature maps at the size of the smaller, the larger averaged over areas."""
    height, width = (min(a, b) for a, b in zip(student_map.shape[2:], teacher_map.shape[2:]))
    return tuple(x if x.shape[2:] == (height, width) else F.adaptive_avg_pool2d(x, (height, width))
                 for x in (student_map, teacher_map))


def paired_maps(student: NetworkOutput, teacher: NetworkOutput,
                pairs: list[tuple[int, int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The feature maps of both at these places, in float32 and of one size."""
    for i, j in pairs:
        yield same_size(at_least_float32(student.feature_maps[i]), at_least_float32(teacher.feature_maps[j]))


def image_ratio(student: NetworkOutput, teacher: NetworkOutput) -> float:
    """Pixels of the student's image over those of the teacher's; 1 where the student's is the larger, or one is not known."""
    if not student.image_size or not teacher.image_size:
        return 1.0
    return min(1.0, math.prod(student.image_size) / math.prod(teacher.image_size))


def at_least_float32(x: Tensor) -> Tensor:
    """Maps come in bfloat16 under autocast; losses need float32."""
    return x.float() if x.element_size() < 4 else x
