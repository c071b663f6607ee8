"""The teacher's accuracy is printed before training, and one line says what may be wrong with it."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn
from torch.utils.data import DataLoader

from mmcrrcd.datasets import ImageArrays, whole_batch
from mmcrrcd.engine import CriticWatchHook, TeacherTestHook
from mmcrrcd.engine.launch import build_runner
from mmcrrcd.models import Distiller, PairPreprocessor
from mmcrrcd.structures import NetworkOutput
from tiny import CLASSES, STUDENT, TinyImages, config, crrcd, train, write_teacher

MEAN, STD = [127.5] * 3, [127.5] * 3


class KnowsRed(nn.Module):
    """Tells the class by the mean of the first channel, for images normalized by MEAN and STD."""

    def __init__(self, logits: bool = True):
        super().__init__()
        self.centers, self.gives_logits = nn.Parameter((torch.arange(CLASSES) * 60. + 30 - MEAN[0]) / STD[0]), logits

    def extract(self, images):
        red = images[:, 0].mean((1, 2))[:, None]
        return NetworkOutput((), red, -(red - self.centers)**2 if self.gives_logits else None, tuple(images.shape[2:]))


class RedImages(ImageArrays):
    def __init__(self, number: int = 400):
        labels = np.arange(number) % CLASSES
        images = np.random.default_rng(0).integers(0, 60, (number, 4, 4, 3))
        images[..., 0] += 60 * labels[:, None, None]
        images[..., 2] += 60 * np.random.default_rng(1).permutation(labels)[:, None, None]
        super().__init__(images.astype(np.uint8), labels, list('abcd'), 'red')


class Lines(list):
    """A logger that keeps what it is told."""

    def info(self, line):
        self.append(line)

    def warning(self, line):
        self.append(f'WARNING {line}')


def said(teacher=None, images=1000, dataset=None, checkpoint=None, collate_fn=whole_batch, objective=None,
         **preprocessor) -> list[str]:
    settings = dict(mean=MEAN, std=STD) | preprocessor
    model = Distiller(STUDENT, teacher or KnowsRed(), objective=objective, data_preprocessor=PairPreprocessor(**settings))
    model.teacher_checkpoint = checkpoint
    loader = DataLoader(dataset or RedImages(), batch_size=8, collate_fn=collate_fn)
    runner = SimpleNamespace(model=model, val_loop=SimpleNamespace(dataloader=loader), iter=0, logger=Lines(),
                             cfg=Config(dict(model=dict())))
    TeacherTestHook(images).before_train(runner)
    return list(runner.logger)


def test_a_teacher_that_sees_its_images_rightly_is_one_line():
    line = 'the teacher knows 100.00 % of {} validation images, as this training shows them to it'
    assert said() == [line.format('the 400')]
    assert said(images=60) == [line.format('60 of the 400')]


@pytest.mark.parametrize('settings, remedy', [
    (dict(to_rgb=True), 'with red and blue swapped it knows'),
    (dict(mean=[0.] * 3, std=[255.] * 3), "with mean=127.5, std=127.5 it knows")])
def test_swapped_channels_and_another_normalization_are_found_without_being_told(settings, remedy):
    accuracy, warning = said(**settings)
    assert 'the teacher knows 100' not in accuracy
    assert warning.startswith('WARNING the teacher may see its images wrongly: ') and remedy in warning and '\n' not in warning


def test_what_its_training_says_is_compared(tmp_path):
    checkpoint = dict(
        state_dict={}, message_hub=dict(runtime_info=dict(best_score=97.5, image_size=[8, 8]), log_scalars={}, resumed_keys={}),
        meta=dict(dataset_meta=dict(classes=['b', 'a', 'c', 'd']), settings=dict(model=dict(data_preprocessor=dict(
            mean=MEAN, std=STD, to_rgb=False)))))
    torch.save(checkpoint, tmp_path / 'epoch_1.pth')
    assert len(said(checkpoint=str(tmp_path / 'epoch_1.pth'))) == 1
    _, warning = said(checkpoint=str(tmp_path / 'epoch_1.pth'), mean=[300., 120., 140.])
    for part in ('its own training ended with 97.50 %', 'mean [127.5, 127.5, 127.5] there, [300.0, 120.0, 140.0] here',
                 'images of 8×8 px there, 4×4 px here', 'its classes begin with b, a, c, and here with a, b, c'):
        assert part in warning


def test_it_is_silent_without_labels_and_without_logits():
    def unlabeled(batch):
        return {key: value for key, value in batch.items() if key != 'labels'}

    assert said(collate_fn=unlabeled) == []
    assert said(teacher=KnowsRed(logits=False)) == []
    other = KnowsRed()
    other.centers = nn.Parameter(torch.arange(7.))       # of other classes
    assert said(teacher=other, objective=dict(cosine=dict(type='mmcrrcd.CosineLoss'))) == []


def test_a_teacher_whose_answers_come_from_a_cache_is_tested_too(tmp_path):
    model = crrcd(write_teacher(tmp_path / 'teacher.pth')) | dict(teacher_cache=dict(views=2, folder=str(tmp_path / 'answers')))
    runner = build_runner(config(tmp_path / 'run', model, epochs=1))
    shown = SimpleNamespace(model=runner.model, cfg=runner.cfg, iter=0, logger=Lines(), val_loop=SimpleNamespace(
        dataloader=DataLoader(TinyImages(1), collate_fn=whole_batch)), train_dataloader=SimpleNamespace(batch_size=8))
    for hook in (TeacherTestHook(), CriticWatchHook()):
        hook.before_train(shown)
    assert runner.model.teacher is None
    accuracy, queue = shown.logger
    assert accuracy.startswith('the teacher knows ') and ' of the 24 validation images' in accuracy
    assert queue == 'rcd: its queue of 12 negatives is full after 2 iterations; till then the batch gives negatives, too'


def test_it_changes_nothing(tmp_path):
    """The same training with and without it ends with the same weights."""
    weights = []
    for name, hooks in (('with', [TeacherTestHook()]), ('without', [])):
        model = crrcd(write_teacher(tmp_path / 'teacher.pth'))
        weights.append(train(config(tmp_path / name, model, epochs=1), *hooks).model.state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
