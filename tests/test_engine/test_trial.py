"""The trial before training: what it finds, and that it leaves no trace."""
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny import BATCH, IMAGES, TinyImages, config, crrcd, in_memory_loader, pipeline_loader, train, write_folder, write_teacher
from torch import nn

from mmcrrcd.datasets.replay import ReplayedViews
from mmcrrcd.engine import student_test, trial
from mmcrrcd.engine.classes import check_classes
from mmcrrcd.engine.hooks import check_input
from mmcrrcd.errors import InputError
from mmcrrcd.models import DistillLoss
from mmcrrcd.registry import DATASETS, LOSSES

CHECK = [dict(type='mmcrrcd.' + name) for name in ('CheckInputHook', 'EpochSeedHook', 'PlainCheckpointHook')]
REMEMBERING = dict(relation='learned', dim=8, objective=dict(
    crd=dict(type='mmcrrcd.CRDLoss', weight=0.5, num_samples=IMAGES, dim=8, num_negatives=6),
    wcord=dict(type='mmcrrcd.WCoRDLoss', weight=[(0, 0), (1, 0), (1, 0.3)])))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    write_teacher(root / 'teacher.pth')
    for name, seed in (('train', 0), ('val', 1)):
        write_folder(root / name, seed)
    return root


def states(runner) -> dict:
    """All that a training ends with: weights, statistics, queues, banks, momentum, and where the generator is."""
    model = {key: value.clone() for key, value in runner.model.state_dict().items()}
    momentum = {f'momentum {i}': state['momentum_buffer'] for i, state in
                enumerate(runner.optim_wrapper.state_dict()['state'].values()) if state.get('momentum_buffer') is not None}
    return model | momentum | dict(generator=torch.get_rng_state())


@pytest.mark.parametrize('pipeline, workers', [(False, 0), (True, 0), pytest.param(True, 2, marks=pytest.mark.slow)])
def test_a_training_ends_the_same_with_and_without_it(tmp_path, folder, monkeypatch, pipeline, workers):
    loaders = {}
    if pipeline:
        val = pipeline_loader(folder / 'val', False, workers)
        loaders = dict(train_dataloader=pipeline_loader(folder / 'train', True, workers), val_dataloader=val,
                       test_dataloader=val, val_evaluator=dict(type='Accuracy', topk=(1, )),
                       test_evaluator=dict(type='Accuracy', topk=(1, )))
    hooks = [hook for hook in CHECK if 'Seed' not in hook['type']]       # which would hide a number more that was drawn
    tried, found = [], {}
    for name in ('with', 'without'):
        with monkeypatch.context() as patch:
            patch.setattr(check_input, 'try_batches', (lambda runner: (tried.append(1), trial.try_batches(runner)))
                          if name == 'with' else lambda runner: None)
            found[name] = states(train(config(tmp_path / name, crrcd(folder / 'teacher.pth', **REMEMBERING), epochs=2,
                                              custom_hooks=hooks, **loaders)))
    assert tried == [1] and found['with'].keys() == found['without'].keys() and len(found['with']) > 50
    different = [key for key, value in found['with'].items() if not torch.equal(value, found['without'][key])]
    assert not different


@LOSSES.register_module()
class Broken(DistillLoss):
    """It can be built, and fails in its first batch: in torch where ``of_torch``, else in its own code."""

    def __init__(self, of_torch: bool):
        super().__init__()
        self.of_torch = of_torch

    def forward(self, student, teacher, batch):
        if self.of_torch:
            return nn.functional.cross_entropy(student.logits, batch.labels + 100)
        return {}['a bug']


@pytest.mark.parametrize('of_torch', [True, False])
def test_a_bug_in_a_loss_of_ones_own_keeps_its_traceback(tmp_path, folder, of_torch):
    model = crrcd(folder / 'teacher.pth', objective=dict(mine=dict(type='mmcrrcd.Broken', of_torch=of_torch)))
    with pytest.raises((IndexError, KeyError)):
        train(config(tmp_path, model, epochs=1, custom_hooks=CHECK))


def test_what_the_losses_cannot_take_is_found_before_training(tmp_path, folder, monkeypatch):
    """Of this package's own code the line is one; nothing has been written by then."""
    monkeypatch.setattr(LOSSES.get('mmcrrcd.KDLoss'), 'forward', lambda *_: torch.ones(3) @ torch.ones(4))
    monkeypatch.setitem(test_what_the_losses_cannot_take_is_found_before_training.__globals__, '__name__', 'mmcrrcd.tests')
    with pytest.raises(InputError, match='the losses cannot take a batch of train_dataloader: RuntimeError: ') as error:
        train(config(tmp_path, crrcd(folder / 'teacher.pth'), epochs=1, custom_hooks=CHECK))
    assert '\n' not in str(error.value) and not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize('trained, tested, message', [
    ('abc', 'abc', None), ('abc', '012', None),
    ('abcd', 'acd', 'has 3 classes and the training 4: b is missing'),
    ('abc', 'abcd', 'has 4 classes and the training 3: d is not in the training'),
    ('abc', 'acb', 'another order: label 1 is c there and b in the training'),
    ('abc', 'abd', 'c is missing; d is not in the training'),
    ('abcdefgh', 'a', r'b, c, d and 4 more are missing'),
])
def test_classes_of_training_and_test(trained, tested, message):
    if message is None:
        return check_classes(tuple(trained), tuple(tested), 'val_dataloader')
    with pytest.raises(InputError, match=message):
        check_classes(tuple(trained), tuple(tested), 'val_dataloader', 'data/val')


def test_images_of_another_size_to_test_on_are_said(tmp_path, folder, monkeypatch):
    said = []
    monkeypatch.setattr(trial, 'print_log', lambda text, *_: said.append(text))
    large = nn.functional.interpolate

    class Large(TinyImages):
        def __getitems__(self, indices):
            batch = super().__getitems__(indices)
            return batch | dict(inputs=large(batch['inputs'], (32, 24)))

    monkeypatch.setitem(DATASETS.module_dict, 'Large', Large)
    loader = in_memory_loader(1, False) | dict(dataset=dict(type='mmcrrcd.Large', seed=1))
    train(config(tmp_path, crrcd(folder / 'teacher.pth'), epochs=1, custom_hooks=CHECK, val_dataloader=loader))
    assert said == ['the images of val_dataloader have 32×24 px and those of the training 16×16: is that meant?']


def test_positions_of_a_joined_data_set(tmp_path, folder):
    whole = in_memory_loader(0, True)
    joined = whole | dict(dataset=dict(type='ConcatDataset', datasets=[whole['dataset'], whole['dataset']]))
    model = crrcd(folder / 'teacher.pth', sampling='unsupervised')
    with pytest.raises(InputError, match='rcd knows images by their positions, and each part of a ConcatDataset counts'):
        train(config(tmp_path, model, epochs=1, train_dataloader=joined, custom_hooks=CHECK))


@pytest.mark.parametrize('kind, number', [(dict(type='RepeatDataset', times=2), 2 * IMAGES),
                                          (dict(type='KFoldDataset', fold=0, num_splits=4), IMAGES * 3 // 4),
                                          (dict(type='ClassBalancedDataset', oversample_thr=0.1), IMAGES)])
def test_mmengines_wrappers_hold_data_in_memory(tmp_path, folder, kind, number):
    loader = in_memory_loader(0, True)
    runner = train(config(tmp_path, crrcd(folder / 'teacher.pth'), epochs=1, custom_hooks=CHECK,
                          train_dataloader=loader | dict(dataset=dict(kind, dataset=loader['dataset']))))
    assert len(runner.train_dataloader.dataset) == number and runner.iter == -(-number // BATCH)


@pytest.mark.parametrize('wrapper', [
    dict(type='RepeatDataset', times=2, dataset=dict(type='mmcrrcd.TinyImages', seed=0)),
    dict(type='KFoldDataset', fold=1, num_splits=3, dataset=dict(type='mmcrrcd.TinyImages', seed=0)),
    dict(type='ConcatDataset', datasets=2 * [dict(type='mmcrrcd.TinyImages', seed=0)]),
    dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[dict(type='mmcrrcd.TinyImages', seed=0)])),
    dict(type='RepeatDataset', times=0, dataset=dict(type='mmcrrcd.TinyImages', seed=0))])
def test_wrappers_around_data_in_memory_cannot_be_replayed(wrapper):
    with DefaultScope.overwrite_default_scope('mmpretrain'), pytest.raises(InputError, match='cannot be replayed|is empty'):
        ReplayedViews(wrapper, 2)


@pytest.mark.parametrize('changes, message', [
    (dict(test_evaluator=dict(type='ConfusionMatrix')), 'test_evaluator: ConfusionMatrix is for samples of a pipeline'),
    (dict(test_evaluator=[dict(type='mmcrrcd.BatchAccuracy'), dict(type='Accuracy')]), 'Accuracy is for samples'),
    (dict(test_evaluator=dict(type='mmcrrcd.BatchAccuracy', topk=(1, 9))), 'test_evaluator: topk=9, and the network has 4'),
    (dict(test_dataloader=in_memory_loader(1, False) | dict(dataset=dict(
        type='RepeatDataset', times=0, dataset=dict(type='mmcrrcd.TinyImages', seed=1)))), 'test_dataloader has no images')])
def test_what_cannot_be_tested_is_said_before_the_test(tmp_path, folder, changes, message):
    cfg = config(tmp_path / 'run', crrcd(folder / 'teacher.pth'), epochs=1)
    train(cfg)
    cfg = Config(cfg.to_dict() | changes | dict(work_dir=str(tmp_path / 'test')))
    with pytest.raises(InputError, match=message):
        student_test.test_student(cfg, tmp_path / 'run')


def test_the_trial_of_a_test_leaves_no_trace(tmp_path, folder, monkeypatch):
    """The metrics, and the file of predictions, are of all images and of no more."""
    file = tmp_path / 'all.json'
    cfg = config(tmp_path / 'run', crrcd(folder / 'teacher.pth'), epochs=1)
    train(cfg)
    cfg.work_dir = str(tmp_path / 'test')
    found = student_test.test_student(Config(cfg.to_dict()), tmp_path / 'run', predictions=str(file))
    assert len(json.loads(file.read_text())['predictions']) == IMAGES
    monkeypatch.setattr(student_test, 'try_evaluator', lambda *_: None)
    assert found == student_test.test_student(Config(cfg.to_dict()), tmp_path / 'run')
