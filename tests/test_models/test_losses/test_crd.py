"""CRD against loops and the published values; its bank: negatives, labels, memory, checkpoints, several processes."""
import numpy as np
import pytest
import torch
from distil_step import random, step
from torch import distributed, multiprocessing
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.models import CRCDLoss, CRDLoss, WCoRDLoss
from mmcrrcd.models.losses.crd import MemoryContrast, ScoresOfBank, bank_scores, nce_loss, scores_of_rows
from mmcrrcd.models.memory import MemoryBank
from mmcrrcd.structures import Batch, NetworkOutput
from utils import GOLDEN


FORMS = scores_of_rows, ScoresOfBank.apply


def slow_direction(features, bank, index, temperature, z=None):
    """One direction's loss, term by term, and Z."""
    b, k, n = len(features), index.shape[1] - 1, len(bank)
    exponentials = [[torch.exp(sum(features[i] * bank[index[i, j]]) / temperature) for j in range(k + 1)] for i in range(b)]
    if z is None:
        z = n * sum(x.item() for row in exponentials for x in row) / (b * (k + 1))
    total = 0
    for row in exponentials:
        total = total - torch.log(row[0] / z / (row[0] / z + k / n))
        for x in row[1:]:
            total = total - torch.log(k / n / (x / z + k / n))
    return total / b, z


def unit(*shape, seed):
    return F.normalize(random(*shape, seed=seed), dim=-1)


def some_index(b, k, n, seed=0):
    return torch.randint(n, (b, 1 + k), generator=torch.Generator().manual_seed(seed))


def test_equals_loops_with_gradients_and_keeps_z():
    contrast = MemoryContrast(num_samples=11, dim=4, num_negatives=6, temperature=0.2, momentum=0.3).double()
    expected_z = [None, None]
    for batch in range(2):
        s, t = unit(3, 4, seed=batch).requires_grad_(), unit(3, 4, seed=batch + 10).requires_grad_()
        index = some_index(3, 6, 11, seed=batch)
        index[:, 0] = torch.tensor([4, 9, 2])
        old = {key: value.clone() for key, value in contrast.bank.named_buffers()}
        value = contrast.contrast(s, t, index)
        (of_s, z_s), (of_t, z_t) = (slow_direction(x, old[key], index, 0.2, z)
                                    for x, key, z in ((s, 'teacher', expected_z[0]), (t, 'student', expected_z[1])))
        expected_z = [z_s, z_t]                          # of the first batch, in the second too
        torch.testing.assert_close(value, of_s + of_t, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(contrast.z, torch.tensor(expected_z, dtype=torch.float64), rtol=1e-12, atol=0)
        for ours, theirs in zip(torch.autograd.grad(value, [s, t]), torch.autograd.grad(of_s + of_t, [s, t])):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        for key, new in (('student', s), ('teacher', t)):
            expected = old[key].clone()
            for i, row in enumerate(index[:, 0]):
                mixed = 0.3 * old[key][row] + 0.7 * new[i].detach()
                expected[row] = mixed / mixed.norm()
            torch.testing.assert_close(getattr(contrast.bank, key), expected, rtol=1e-12, atol=1e-12)


def test_equals_the_published_values():
    """Tolerance: 1e-5 of the loss, as the published code adds 1e-7 to a denominator, once for each of the 33 scores."""
    data = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / 'reference.npz').items()}
    contrast = MemoryContrast(num_samples=200, dim=24, num_negatives=32, temperature=0.07, momentum=0.5).double()
    contrast.bank.student.copy_(data['crd_mem_s'])
    contrast.bank.teacher.copy_(data['crd_mem_t'])
    index, name = data['crd_neg_index'], 'out_crd_K32_T0.07_m0.5'
    assert torch.equal(index[:, 0], data['crd_index'])
    value = contrast.contrast(data['crd_v_s'], data['crd_v_t'], index)
    torch.testing.assert_close(value, data[name].squeeze(), rtol=1e-5, atol=0)
    torch.testing.assert_close(contrast.z, data[name + '_Z'], rtol=1e-6, atol=0)
    for key, bank in (('s', contrast.bank.student), ('t', contrast.bank.teacher)):
        torch.testing.assert_close(bank, data[f'{name}_mem_{key}'], rtol=0, atol=1e-9)


@pytest.mark.parametrize('form', FORMS)
def test_gradients_of_both_forms(form):
    bank, index = unit(7, 3, seed=1), some_index(2, 5, 7)
    torch.autograd.gradcheck(lambda x: nce_loss(form(x, bank, index), 9.0, 0.3, 7), unit(2, 3, seed=0).requires_grad_())


def test_both_forms_are_equal():
    x, bank, index = unit(4, 8, seed=0).requires_grad_(), unit(30, 8, seed=1), some_index(4, 50, 30)
    results = []
    for form in FORMS:
        scores = form(x, bank, index)
        results.append((scores, *torch.autograd.grad(scores.square().sum(), x)))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
    assert results[0][0].shape == (4, 51)
    torch.testing.assert_close(results[0][0][2, 7], x[2] @ bank[index[2, 7]])


def saved_bytes(function, *inputs) -> int:
    """Memory that the backward pass of ``function`` holds."""
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        result = function(*inputs)                       # kept alive while the storages are counted
    return sum(kept.values()) if result.requires_grad else 0


@pytest.mark.parametrize('b, k, n', [(96, 16384, 50000), (64, 500, 50000)])
def test_memory_of_a_direction(b, k, n):
    """The form that is chosen holds the less; at the published size for CIFAR-100, batch 96, at most 51 MB."""
    x, bank, index = torch.randn(b, 128, requires_grad=True), torch.randn(n, 128), torch.randint(n, (b, 1 + k))
    held = saved_bytes(lambda: nce_loss(bank_scores(x, bank, index), n, 0.07, n))
    assert b * k * 4 < held < 51e6
    others = [saved_bytes(lambda f=form: nce_loss(f(x, bank, index), n, 0.07, n)) for form in FORMS]
    assert held == min(others) < max(others) / 1.5


def test_no_negative_is_of_the_samples_class_once_labels_are_known():
    torch.manual_seed(0)
    bank, labels = MemoryBank(40, 4), torch.tensor([3, 0, 7, 3, 3, 0, 7, 7] * 5)[torch.randperm(40)]
    unseen = set(range(40))
    for index in torch.randperm(40).split(8):
        batch = Batch(labels[index], index)
        unseen -= set(index.tolist())
        rows = bank.draw(batch, 300)
        assert rows.shape == (8, 301) and torch.equal(rows[:, 0], index)
        for i, own in enumerate(rows):
            allowed = unseen | {j for j in set(range(40)) - unseen if labels[j] != batch.labels[i]}
            assert set(own[1:].tolist()) == allowed      # 300 draws from at most 39 rows: each of them occurs
    assert torch.equal(bank.label, labels)
    rows = bank.draw(Batch(labels, torch.arange(40)), 300)
    assert (labels[rows[:, 1:]] != labels[:, None]).all()


def test_negatives_are_uniform():
    torch.manual_seed(0)
    bank, labels = MemoryBank(10, 2), torch.tensor([1, 0, 2, 1, 0, 2, 2, 0, 1, 1])
    bank.label.copy_(labels)
    counts = bank.draw(Batch(labels[:1], torch.tensor([0])), 60000)[0, 1:].bincount(minlength=10)
    expected = torch.where(labels == 1, 0, 60000 // 6)
    assert ((counts - expected).abs() <= 5 * 91.3 * (expected > 0)).all()          # five standard deviations


def test_positions_are_checked():
    bank = MemoryBank(5, 2)
    labels = torch.zeros(2, dtype=torch.long)
    for index in (torch.tensor([0, 5]), torch.tensor([-1, 2])):
        with pytest.raises(InputError, match='num_samples=5'):
            bank.draw(Batch(labels, index), 3)
    with pytest.raises(InputError, match='sample_idx'):
        bank.draw(Batch(labels, None), 3)
    with pytest.raises(RuntimeError, match='too few'):   # what runs on a GPU
        torch._assert_async(torch.tensor(False), 'too few')


def test_of_a_repeated_image_the_last_counts():
    bank = MemoryBank(4, 2, momentum=0).double()
    new = torch.tensor([[1., 0.], [0., 1.], [0., -1.]]).double()
    bank.update(torch.tensor([2, 0, 2]), new, -new)
    assert torch.equal(bank.student[2], new[2]) and torch.equal(bank.teacher[2], -new[2])
    assert torch.equal(bank.student[0], new[1])


@pytest.mark.parametrize('settings, word', [
    (dict(num_samples=1), 'num_samples'), (dict(momentum=1), 'momentum'), (dict(temperature=0), 'temperature'),
    (dict(num_negatives=0), 'num_negatives'), (dict(num_negatives='many'), 'num_negatives'),
    (dict(num_samples=9.5), 'num_samples')])
def test_wrong_settings_are_named(settings, word):
    for loss in (CRDLoss, CRCDLoss):
        with pytest.raises(InputError, match=word):
            loss(**dict(num_samples=10) | settings)


LOSSES = dict(crd=lambda: CRDLoss(num_samples=24, dim=6, num_negatives=10), wcord=lambda: WCoRDLoss(dim=6, num_negatives=20),
              crcd=lambda: CRCDLoss(num_samples=24, dim=6, num_negatives=10))


def batches(number: int, b: int = 8):
    """Student, teacher and batch, for several steps; no image occurs twice in a batch."""
    for seed in range(number):
        index = torch.randperm(24, generator=torch.Generator().manual_seed(seed))[:b]
        student, teacher = (NetworkOutput((), random(b, width, seed=seed + shift).float(),
                                          random(b, 3, seed=seed + 2 * shift).float())
                            for width, shift in ((5, 100), (7, 200)))
        yield student, teacher, Batch(index % 3, index)


def prepared(name: str):
    torch.manual_seed(0)
    loss = LOSSES[name]()
    loss.build(*next(batches(1))[:2])
    return loss


@pytest.mark.parametrize('name', LOSSES)
def test_goes_on_from_a_checkpoint(name):
    loss, steps = prepared(name), list(batches(5))
    for outputs in steps[:3]:
        loss(*outputs)
    saved = {key: value.clone() for key, value in loss.state_dict().items()}
    for which in ('student', 'teacher', 'label', 'z') if name != 'wcord' else ('embedding', 'key', 'pushed'):
        assert any(key.endswith(which) for key in saved)
    values = []
    for resumed in (False, True):
        if resumed:
            loss = prepared(name)
            loss.load_state_dict(saved)
        torch.manual_seed(1)
        values.append([loss(*outputs).item() for outputs in steps[3:]])
    assert values[0] == values[1]
    assert prepared(name)(*steps[3]).item() != values[0][0]


def test_a_bank_of_another_size_is_refused():
    with pytest.raises(InputError, match='num_samples and dim'):
        MemoryBank(5, 3).load_state_dict(MemoryBank(6, 3).state_dict())


def steps_of(name: str, rank: int = 0, world: int = 1) -> dict:
    """Losses and gradients of some steps with a process's share of each batch, and all buffers at the end."""
    loss, left = prepared(name), dict(losses=[], gradients=[])
    for part in (part for part in loss.modules() if isinstance(part, MemoryBank)):
        def draw(batch, number, part=part, learn=part.draw):
            learn(batch, number)                         # for the labels; the rows are fixed, to compare the processes
            return (batch.index[:, None] + torch.arange(1 + number)) % 24

        part.draw = draw
    share = slice(rank * 8 // world, (rank + 1) * 8 // world)
    for student, teacher, batch in batches(4):
        student, teacher = (x._replace(embedding=x.embedding[share], logits=x.logits[share]) for x in (student, teacher))
        value = loss(student, teacher, Batch(batch.labels[share], batch.index[share]))
        left['losses'].append(value.detach())
        left['gradients'].append([x.detach() for x in torch.autograd.grad(value, list(loss.parameters()))])
    return left | dict(buffers=dict(loss.named_buffers()))


def process(rank: int, folder) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    # The local part of WCoRD is a process's own.
    LOSSES['wcord'] = lambda: WCoRDLoss(dim=6, num_negatives=20, local_weight=0)
    torch.save({name: steps_of(name, rank, 2) for name in LOSSES}, folder / f'{rank}.pt')
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_end_with_the_same_memory_as_one(tmp_path, monkeypatch):
    monkeypatch.setitem(LOSSES, 'wcord', lambda: WCoRDLoss(dim=6, num_negatives=20, local_weight=0))
    multiprocessing.spawn(process, (tmp_path, ), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pt') for rank in range(2))
    for name in LOSSES:
        whole = steps_of(name)
        for key, value in whole['buffers'].items():
            assert torch.equal(first[name]['buffers'][key], second[name]['buffers'][key]), key
            torch.testing.assert_close(first[name]['buffers'][key], value, rtol=1e-5, atol=1e-6)
        for a, b, one in zip(first[name]['losses'], second[name]['losses'], whole['losses'], strict=True):
            torch.testing.assert_close((a + b) / 2, one, rtol=1e-4, atol=1e-5)
        for of_a, of_b, of_one in zip(first[name]['gradients'], second[name]['gradients'], whole['gradients'], strict=True):
            for a, b, one in zip(of_a, of_b, of_one, strict=True):
                torch.testing.assert_close((a + b) / 2, one, rtol=1e-3, atol=1e-5)


def test_a_step_in_a_distiller():
    model, value = step(dict(type='mmcrrcd.CRDLoss', num_samples=24, num_negatives=12, dim=16))
    contrast = model.losses['method'].contrast
    assert value > 0 and contrast.z.all()
    assert torch.equal(contrast.bank.label, torch.where(torch.arange(24) < 8, torch.arange(24) % 4, -1))
