"""Ranks and average precision against sorting in loops, with ties and distractors in blocks."""
import numpy as np
import pytest
import torch

from mmcrrcd.errors import InputError
from mmcrrcd.evaluation import identification
from mmcrrcd.evaluation.identification import identify


@pytest.fixture(params=[None, (3, 5)])
def small_pieces(request, monkeypatch):
    """All at once, and in pieces that do not divide the numbers of faces."""
    if request.param:
        for name, size in zip(('ROWS', 'COLUMNS'), request.param):
            monkeypatch.setattr(identification, name, size)


def faces(seed: int, ties: bool = False, probes: int = 20, gallery: int = 30, others: int = 47, people: int = 8):
    """Random embeddings; with ties, vectors of -1 and 1 in 4 or 16 places, whose cosines are exact in binary."""
    rng = np.random.default_rng(seed)
    shapes = [(n, 4 if ties else 12) for n in (gallery, probes, others)]
    made = [rng.choice([-1.0, 1.0], shape) if ties else rng.normal(0, 1, shape) for shape in shapes]
    gallery_ids = np.concatenate([np.arange(people), rng.integers(people, size=gallery - people)])
    probe_ids = rng.integers(people, size=probes)
    if not ties:                                         # near enough to their people that ranks are of all sizes
        centers = rng.normal(0, 1, (people, 12))
        made[0] += centers[gallery_ids]
        made[1] += centers[probe_ids]
    gallery, probe, distractors = (torch.from_numpy(x) for x in made)
    return gallery, torch.from_numpy(gallery_ids), probe, torch.from_numpy(probe_ids), distractors


def slow(gallery, gallery_ids, probe, probe_ids, distractors) -> tuple[list[int], list[float]]:
    """Each probe's rank and average precision from its whole list, in loops; wrong faces first among equals."""
    ranks, precisions = [], []
    everyone = [*gallery.tolist(), *distractors.tolist()]
    owners = [*gallery_ids.tolist(), *[None] * len(distractors)]
    for x, person in zip(probe.tolist(), probe_ids.tolist()):
        def cosine(y, x=x):
            product = sum(a * b for a, b in zip(x, y))
            return product / (sum(a * a for a in x)**0.5 * sum(b * b for b in y)**0.5)

        scores = [cosine(y) for y in everyone]
        right = [owner == person for owner in owners]
        order = sorted(range(len(scores)), key=lambda k: (-scores[k], right[k]))
        ranks.append(1 + next(place for place, k in enumerate(order) if right[k]))
        # Down the list, the area under precision over recall.
        area, old_recall, old_precision, found = 0.0, 0.0, 1.0, 0
        for place, k in enumerate(order, 1):
            found += right[k]
            recall, precision = found / sum(right), found / place
            area += (recall - old_recall) * (old_precision + precision) / 2
            old_recall, old_precision = recall, precision
        precisions.append(area)
    return ranks, precisions


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('seed', range(3))
def test_exactly_as_sorting_in_loops(small_pieces, seed, ties):
    *known, distractors = faces(seed, ties)
    ranks, precisions = slow(*known, distractors)
    result = identify(*known, [distractors[:20], distractors[20:21], distractors[21:]])
    assert result.ranks.tolist() == ranks and len(set(ranks)) > 3
    assert result.average_precisions.tolist() == pytest.approx(precisions, abs=1e-12)
    for k in (1, 10, 20):
        assert result.rank(k) == pytest.approx(100 * sum(rank <= k for rank in ranks) / len(ranks))
    assert result.mean_average_precision == pytest.approx(100 * sum(precisions) / len(precisions))
    assert result.searched == 77


@pytest.mark.parametrize('rank, expected', [(1, 1.0), (2, 1 / 4), (3, 1 / 6)])
def test_average_precision_of_one_right_face(rank, expected):
    """As the official code of TinyFace counts: half of 1 / rank but at the first place."""
    gallery = torch.eye(3)
    result = identify(gallery, torch.arange(3), torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([rank - 1]))
    assert result.ranks.tolist() == [rank] and result.average_precisions.item() == pytest.approx(expected)


def test_blocks_make_no_difference(small_pieces):
    *known, distractors = faces(5)
    whole, parts = identify(*known, [distractors]), identify(*known, iter(distractors.split(7)))
    assert torch.equal(whole.ranks, parts.ranks) and torch.equal(whole.average_precisions, parts.average_precisions)
    alone = identify(*known)
    assert (alone.ranks <= whole.ranks).all() and (alone.ranks < whole.ranks).any() and alone.searched == 30


def test_blocks_are_taken_one_at_a_time():
    """No block is asked for before the one ahead of it is used and gone."""
    import gc
    import weakref
    *known, distractors = faces(6)
    alive = []

    def blocks():
        for start in range(0, 40, 10):
            gc.collect()
            assert sum(reference() is not None for reference in alive) <= 1
            block = distractors[start:start + 10].clone()
            alive.append(weakref.ref(block))
            yield block
            del block

    assert identify(*known, blocks()).searched == 70


def test_length_of_the_embeddings_does_not_matter():
    gallery, gallery_ids, probe, probe_ids, distractors = faces(7)
    first = identify(gallery, gallery_ids, probe, probe_ids, [distractors])
    factors = torch.rand(30, 1, generator=torch.Generator().manual_seed(0)).double() + 0.1
    second = identify(gallery * factors, gallery_ids, 3 * probe, probe_ids, [5 * distractors])
    assert torch.equal(first.ranks, second.ranks)


def test_a_wrong_face_with_the_same_similarity_is_before_the_right_one():
    gallery, probe = torch.tensor([[1., 0], [1., 0], [0, 1.]]), torch.tensor([[1., 0]])
    one, ids = torch.tensor([0]), torch.tensor([0, 1, 2])
    assert identify(gallery, ids, probe, one).ranks.tolist() == [2]
    assert identify(gallery, ids, probe, one, [probe, probe]).ranks.tolist() == [4]
    assert identify(gallery, torch.tensor([0, 0, 2]), probe, one).average_precisions.tolist() == [1]


def test_float32_and_the_devices_types_are_taken():
    known = faces(8)
    single = identify(*[x.float() if x.is_floating_point() else x for x in known[:4]], [known[4].float()])
    assert single.ranks.tolist() == identify(*known[:4], [known[4]]).ranks.tolist()


@pytest.mark.parametrize('changes, message', [
    (dict(probe_ids=torch.tensor([0, 9])), '1 of 2 probes show persons who are not in the gallery'),
    (dict(probe=torch.ones(2, 4)), 'the probes have 4 numbers each, the gallery 3'),
    (dict(distractors=[torch.ones(2, 4)]), 'the distractors have 4 numbers each, the probes 3'),
    (dict(gallery=torch.full((2, 3), torch.nan)), r'gallery: expected finite embeddings \(N, D\), got \(2, 3\)'),
    (dict(distractors=[torch.ones(3)]), r'distractors: expected finite embeddings \(N, D\), got \(3,\)'),
])
def test_bad_input(changes, message):
    good = dict(gallery=torch.eye(3)[:2], gallery_ids=torch.tensor([0, 1]), probe=torch.eye(3)[:2],
                probe_ids=torch.tensor([0, 1]))
    with pytest.raises(InputError, match=message):
        identify(**good | changes)
