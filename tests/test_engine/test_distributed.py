"""Two processes with half a batch each are one process with the whole batch."""
import itertools
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from tiny import BATCH, SIZE, STUDENT, TEACHER, crrcd, random_images, write_teacher
from torch import distributed, multiprocessing

from mmcrrcd.engine.launch import prepare_processes
from mmcrrcd.registry import MODELS

STEPS, WORLD, QUEUE = 5, 2, 12                           # a queue that no number of batches fills exactly
DIRECTION, LEARNED = dict(), dict(relation='learned', dim=16)
FORMS = dict(direction=DIRECTION, unsupervised=DIRECTION | dict(sampling='unsupervised'),
             direction_z=DIRECTION | dict(normalizer='batch'), learned=LEARNED, learned_z=LEARNED | dict(normalizer='batch'),
             learned_as_printed=LEARNED | dict(center=None, normalizer='none'))
CASES = [*itertools.product(['direction'], (None, 3, 6)), ('unsupervised', 3), ('direction_z', 6), ('learned', None),
         ('learned', 3), ('learned_z', 6), ('learned_as_printed', None)]


def steps(teacher, form: str, num_anchors: int | None, rank: int = 0, world: int = 1) -> list[dict]:
    """What each of STEPS training steps leaves behind in process ``rank``."""
    torch.manual_seed(0)
    settings = crrcd(teacher, num_anchors=num_anchors, num_negatives=QUEUE, num_samples=1000, **FORMS[form])
    settings['data_preprocessor'].update(padding=None, flip=0)
    model = MODELS.build(settings)
    model.init_weights()
    model.train()
    model.student.eval()
    optimizer = torch.optim.SGD(model.parameters(), 0.002, momentum=0.9)      # where a training diverges rounding does, too
    forward = MMDistributedDataParallel(model, broadcast_buffers=False) if world > 1 else model
    loss_rcd, places = model.losses['rcd'], []
    closed = loss_rcd.closed

    def watched_closed(at, own, *others):
        places.append((at, own))
        return closed(at, own, *others)

    loss_rcd.closed = watched_closed
    share, left = slice(rank * BATCH // world, (rank + 1) * BATCH // world), []
    for step in range(STEPS):
        images, labels = random_images(seed=step, n=BATCH)
        labels = torch.from_numpy(labels)[torch.randperm(BATCH, generator=torch.Generator().manual_seed(step))]
        data = dict(inputs=torch.from_numpy(images).permute(0, 3, 1, 2)[share], labels=labels[share],
                    index=torch.arange(BATCH)[share])
        data = model.data_preprocessor(data, training=True)
        losses = forward(data['inputs'], data['data_samples'], mode='loss')
        loss = sum(value for key, value in losses.items() if key.startswith('loss'))
        optimizer.zero_grad()
        loss.backward()
        left.append(dict(losses={key: value.detach() for key, value in losses.items() if key.startswith('loss')},
                         gradients={key: value.grad.clone() for key, value in model.named_parameters()},
                         queue={key: value.clone() for key, value in loss_rcd.queue.state_dict().items()},
                         log_mean=loss_rcd.log_mean.clone(), places=places.pop()))
        optimizer.step()
    return left


def process(rank: int, folder, teacher) -> None:
    """All that two processes do here, as their start takes longer than that."""
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=WORLD)
    torch.save([steps(teacher, *case, rank=rank, world=WORLD) for case in CASES], folder / f'{rank}.pt')
    torch.save(staged(rank, teacher), folder / f'staged{rank}.pt')
    with_a_zero(rank, folder)
    distributed.destroy_process_group()


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp('teacher') / 'teacher.pth')


@pytest.fixture(scope='module')
def folder(tmp_path_factory, teacher):
    """What the two processes left."""
    folder = tmp_path_factory.mktemp('processes')
    multiprocessing.spawn(process, (folder, teacher), nprocs=WORLD)
    return folder


@pytest.fixture(scope='module')
def of_two(folder):
    """For each case what the two processes were left with."""
    return dict(zip(CASES, zip(*(torch.load(folder / f'{rank}.pt') for rank in range(WORLD)))))


@pytest.fixture(scope='module')
def of_one(teacher):
    """For each case what one process with the whole batch is left with."""
    return {case: steps(teacher, *case) for case in CASES}


@pytest.mark.parametrize('case', CASES)
def test_gradients_and_losses_are_those_of_the_whole_batch(of_two, of_one, case):
    """Through DistributedDataParallel, which averages the gradients of the processes, for CE + KD + RCD.

    The student's batch norms use held statistics here. In training mode each process normalizes by its own share of the
    batch, so the student's forward pass itself differs, unless the config says ``sync_bn='torch'`` (on GPUs).
    Tolerance: 1e-3 of the largest entry of a gradient, 1e-5 for small ones (centering makes that of a bias zero but for
    rounding); sums are taken in another order, and steps build on one another.
    """
    first, second = of_two[case]
    for whole, a, b in zip(of_one[case], first, second, strict=True):
        for key, gradient in whole['gradients'].items():
            assert torch.equal(a['gradients'][key], b['gradients'][key])
            torch.testing.assert_close(a['gradients'][key], gradient, rtol=0,
                                       atol=1e-3 * max(gradient.abs().max().item(), 1e-2), msg=lambda m, k=key: f'{k}: {m}')
        for key, loss in whole['losses'].items():
            torch.testing.assert_close((a['losses'][key] + b['losses'][key]) / 2, loss, rtol=1e-4, atol=1e-5)
        assert whole['losses']['loss_rcd'] != 0


@pytest.mark.parametrize('case', CASES)
def test_queue_and_constant_are_the_same_everywhere(of_two, of_one, case):
    first, second = of_two[case]
    for step, (whole, a, b) in enumerate(zip(of_one[case], first, second, strict=True)):
        for key, value in whole['queue'].items():
            assert torch.equal(a['queue'][key], b['queue'][key])
            torch.testing.assert_close(a['queue'][key], value, rtol=1e-5, atol=1e-5)
        assert a['queue']['pushed'] == (step + 1) * BATCH
        assert torch.equal(a['log_mean'], b['log_mean'])
        torch.testing.assert_close(a['log_mean'], whole['log_mean'], rtol=1e-4, atol=1e-5)
        assert a['log_mean'].isfinite() == case[0].endswith('_z')


@pytest.mark.parametrize('case', CASES)
def test_anchors_lie_evenly_over_the_batch_of_both_processes(of_two, case):
    expected = {None: list(range(BATCH)), 3: [0, 2, 5], 6: [0, 1, 2, 4, 5, 6]}[case[1]]
    for rank, left in enumerate(of_two[case]):
        for at, own in (step['places'] for step in left):
            assert at.tolist() == expected
            assert own.tolist() == list(range(rank * BATCH // WORLD, (rank + 1) * BATCH // WORLD))


def staged(rank: int, teacher) -> list[dict]:
    """The gradients of a step in an epoch without the relational loss, and of two in an epoch with it."""
    torch.manual_seed(0)
    model = MODELS.build(crrcd(teacher, beta=[(0, 0), (1, 0), (1, 1)], num_negatives=BATCH))
    model.init_weights()
    cfg = Config(dict(model=dict(beta=[(0, 0), (1, 1)])))
    prepare_processes(cfg, 'none')
    forward = MMDistributedDataParallel(model.train(), broadcast_buffers=False,
                                        find_unused_parameters=cfg.find_unused_parameters)
    images, labels = (torch.from_numpy(x) for x in random_images(seed=0, n=BATCH))
    share, left = slice(rank * BATCH // WORLD, (rank + 1) * BATCH // WORLD), []
    for epoch in (0, 1, 1):
        MessageHub.get_current_instance().update_info('epoch', epoch)
        data = dict(inputs=images.permute(0, 3, 1, 2)[share], labels=labels[share], index=torch.arange(BATCH)[share])
        data = model.data_preprocessor(data, training=True)
        model.zero_grad()
        sum(value for key, value in forward(**data, mode='loss').items() if key.startswith('loss')).backward()
        left.append({key: value.grad for key, value in model.named_parameters()})
    return left


def test_a_loss_that_is_off_for_some_epochs_works_in_several_processes(folder):
    first, second = (torch.load(folder / f'staged{rank}.pt') for rank in range(WORLD))
    assert all((value is None) == key.startswith('losses.') for key, value in first[0].items())
    for a, b in zip(first, second, strict=True):
        assert all(value is None or torch.equal(value, b[key]) for key, value in a.items())
    assert first[2]['losses.rcd.student_map.weight'].abs().max() > 0


NEVER = dict(
    ekd=dict(type='mmcrrcd.EKD', beta=0), simkd=dict(type='mmcrrcd.SimKD'),
    fitnet=dict(type='mmcrrcd.Distiller', objective=dict(hint=dict(type='mmcrrcd.FitNetLoss', weight=0))),
    embedding=dict(type='mmcrrcd.Distiller', cls_weight=0, objective=dict(rkd=dict(type='mmcrrcd.RKDLoss'))))


def with_a_zero(rank: int, folder: Path) -> None:
    """Two steps of each of NEVER, with what tools/train.py tells DDP."""
    images, labels = (torch.from_numpy(x) for x in random_images(seed=0, n=BATCH))
    for name, settings in NEVER.items():
        cfg = Config(dict(model=settings))
        prepare_processes(cfg, 'none')
        preprocessor = crrcd('')['data_preprocessor']
        model = MODELS.build(settings | dict(student=STUDENT, teacher=TEACHER, input_size=SIZE, data_preprocessor=preprocessor))
        forward = MMDistributedDataParallel(model.train(), broadcast_buffers=False,
                                            find_unused_parameters=cfg.find_unused_parameters)
        for _ in range(2):
            data = dict(inputs=images.permute(0, 3, 1, 2), labels=labels, index=torch.arange(BATCH))
            data = model.data_preprocessor(data, training=True)
            sum(value for key, value in forward(**data, mode='loss').items() if key.startswith('loss')).backward()
        (folder / f'{name}{rank}').touch()


def test_a_weight_that_is_always_zero_works_in_several_processes(folder):
    assert all((folder / f'{name}{rank}').exists() for name in NEVER for rank in range(WORLD))
