"""Several resolutions in training: what is drawn, when, and that a resumed run draws the same."""
import random
from collections import Counter

import numpy as np
import pytest
import torch
from mmcrrcd.datasets import downsample
from mmcrrcd.engine.hooks.epoch_seed import seed_all
from mmcrrcd.errors import InputError
from mmcrrcd.models import PairPreprocessor
from mmengine.hooks import Hook
from mmengine.structures import BaseDataElement
from tiny import BATCH, IMAGES, MEAN, STD, config, crrcd, pipeline_loader, train, write_folder, write_teacher

SIDES = [4, 8, (6, 10), 16]
PER_EPOCH = IMAGES // BATCH


def preprocessor(**settings) -> PairPreprocessor:
    return PairPreprocessor(MEAN, STD, **(dict(train_resolutions=SIDES, resolution=8) | settings))


def batch(number: int = 5) -> dict:
    images = torch.from_numpy(np.random.default_rng(0).integers(256, size=(number, 3, 16, 16), dtype=np.uint8))
    return dict(inputs=images, labels=torch.arange(number), index=torch.arange(number))


def size(images: torch.Tensor) -> tuple[int, int]:
    return tuple(images.shape[2:])


def test_every_resolution_is_drawn_and_the_images_are_reduced_to_it():
    seed_all(0)
    process, data, counts = preprocessor(), batch(), Counter()
    for _ in range(400):
        pair = process(data, training=True)['inputs']
        assert size(pair.high) == (16, 16)
        counts[size(pair.low)] += 1
        expected = downsample(data['inputs'], size(pair.low))
        assert torch.equal(pair.low, (expected - process.mean) / process.std)
    assert set(counts) == {(4, 4), (8, 8), (6, 10), (16, 16)}
    assert all(70 < count < 130 for count in counts.values())


def test_tests_stay_at_one_resolution():
    seed_all(0)
    state = random.getstate()
    assert {size(preprocessor()(batch())['inputs'].low) for _ in range(10)} == {(8, 8)}
    assert {size(preprocessor(resolution=None)(batch())['inputs'].low) for _ in range(10)} == {(16, 16)}
    assert random.getstate() == state


def test_upsampled_images_have_one_size_and_several_sharpnesses():
    seed_all(0)
    process, data = preprocessor(upsample=True), batch()
    images = [process(data, training=True)['inputs'].low for _ in range(40)]
    assert {size(low) for low in images} == {(16, 16)}
    assert len({low.numpy().tobytes() for low in images}) == len(SIDES)


def drawn(seed: int, process: PairPreprocessor, data: dict, number: int = 20) -> list:
    seed_all(seed, 3)
    return [size(process(data, training=True)['inputs'].low) for _ in range(number)]


def test_the_draw_is_a_function_of_the_seed_and_the_same_on_both_paths():
    in_memory, data = preprocessor(padding=2, flip=0.5), batch()
    assert drawn(1, in_memory, data) == drawn(1, in_memory, data) != drawn(2, in_memory, data)
    assert drawn(1, in_memory, data) == drawn(1, preprocessor(), data)                             # crops draw elsewhere
    piped = dict(inputs=list(data['inputs']))
    assert drawn(1, in_memory, data) == drawn(1, preprocessor(), piped)


def test_crops_are_those_of_a_run_at_one_resolution():
    seed_all(1)
    several = [preprocessor(padding=2, flip=0.5)(batch(), training=True)['inputs'].high for _ in range(3)]
    seed_all(1)
    one = [preprocessor(padding=2, flip=0.5, train_resolutions=None)(batch(), training=True)['inputs'].high for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(several, one))


def test_pipeline_and_in_memory_path_give_the_same_pairs():
    data = batch()
    samples = [BaseDataElement(gt_label=label[None], metainfo=dict(sample_idx=i)) for i, label in enumerate(data['labels'])]
    for _ in range(8):
        seed = random.randrange(2**31)
        seed_all(seed)
        in_memory = preprocessor()(data, training=True)['inputs']
        seed_all(seed)
        piped = preprocessor()(dict(inputs=list(data['inputs']), data_samples=samples), training=True)['inputs']
        assert torch.equal(in_memory.low, piped.low) and torch.equal(in_memory.high, piped.high)


def test_images_reduced_in_the_pipeline_already_are_refused():
    samples = [BaseDataElement(img_low=torch.zeros(3, 8, 8, dtype=torch.uint8)) for _ in range(5)]
    data = dict(inputs=list(batch()['inputs']), data_samples=samples)
    with pytest.raises(InputError, match='the samples carry img_low already: take ResolutionPair out of the pipeline'):
        preprocessor()(data, training=True)
    assert size(preprocessor()(data)['inputs'].low) == (8, 8)


@pytest.mark.parametrize('settings, message', [
    (8, 'train_resolutions is a list of resolutions, got 8'),
    ([], 'train_resolutions is a list of resolutions, got []'),
    ([8, 0], 'resolution is a number of pixels (or a height and a width), got 0'),
    ([8, '16'], "resolution is a number of pixels (or a height and a width), got '16'"),
])
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(InputError) as error:
        preprocessor(train_resolutions=settings)
    assert str(error.value) == message


class Watch(Hook):
    """Notes the size of the student's images, and stops the process where told."""

    priority = 'VERY_LOW'

    def __init__(self, stop: int | None = None):
        self.sizes, self.stop = [], stop

    def before_train(self, runner):
        runner.model.student.backbone.register_forward_pre_hook(
            lambda module, inputs: self.sizes.append(size(inputs[0])) if module.training else None)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == self.stop:
            raise KeyboardInterrupt


@pytest.mark.parametrize('path', ['in_memory', 'mmpretrain'])
def test_resumed_run_ends_bit_for_bit_where_the_whole_one_does(tmp_path, path):
    model = crrcd(write_teacher(tmp_path / 'teacher.pth'))
    model['data_preprocessor']['train_resolutions'] = [4, 8, 12, 16]
    changes = {}
    if path == 'mmpretrain':
        loader = pipeline_loader(write_folder(tmp_path / 'images', seed=0), training=True)
        loader['dataset']['pipeline'] = [step for step in loader['dataset']['pipeline'] if 'ResolutionPair' not in step['type']]
        changes = dict(train_dataloader=loader)
    watch = Watch()
    whole = train(config(tmp_path / 'whole', model, **changes), watch)
    assert len(watch.sizes) == 4 * PER_EPOCH and len(set(watch.sizes)) > 2

    killed = config(tmp_path / 'killed', model, **changes)
    with pytest.raises(KeyboardInterrupt):
        train(killed, Watch(stop=2 * PER_EPOCH + 1))
    again = Watch()
    resumed = train(killed, again, resume=True)
    assert again.sizes == watch.sizes[2 * PER_EPOCH:]
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert whole.message_hub.get_scalar('val/accuracy/top1').current() == resumed.message_hub.get_scalar(
        'val/accuracy/top1').current()
