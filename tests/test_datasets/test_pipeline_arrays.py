"""Arrays through mmpretrain's pipelines: what its own data sets give, and what the in-memory pipeline gives."""
import numpy as np
import pytest
import torch
from mmcrrcd.datasets import GlyphArrays, ImageArrays, PipelineArrays
from mmcrrcd.errors import InputError
from mmcrrcd.models import PairPreprocessor
from mmengine.dataset import ClassBalancedDataset, pseudo_collate
from mmpretrain.registry import DATASETS
from tiny import TinyImages, config, crrcd, in_memory_loader, train, write_teacher
from torch.utils.data import DataLoader

PACK = dict(type='PackInputs')
GLYPHS = dict(type='mmcrrcd.GlyphArrays', split='test', num_images=50)


def test_samples_are_those_of_the_arrays():
    arrays = GlyphArrays('test', num_images=50)
    dataset = DATASETS.build(dict(type='mmcrrcd.PipelineArrays', arrays=GLYPHS, pipeline=[PACK]))
    assert len(dataset) == 50 and tuple(dataset.metainfo['classes']) == arrays.metainfo['classes']
    for i in (0, 7, 49):
        sample = dataset[i]
        assert torch.equal(sample['inputs'], arrays[i]['inputs'][0])
        assert sample['data_samples'].gt_label.item() == arrays.labels[i]
        assert sample['data_samples'].sample_idx == i and sample['data_samples'].img_shape == (32, 32)


def test_both_paths_give_the_same_batch():
    in_memory, piped = GlyphArrays('test', num_images=50), PipelineArrays(GLYPHS, pipeline=[PACK])
    preprocessor = PairPreprocessor([127.] * 3, [60.] * 3, resolution=8)
    samples = next(iter(DataLoader(piped, 20, collate_fn=pseudo_collate, num_workers=1)))
    ours, theirs = preprocessor(in_memory.__getitems__(range(20)), True), preprocessor(samples, True)
    for a, b in zip(ours['inputs'], theirs['inputs']):
        assert torch.equal(a, b)
    assert ours['data_samples'].labels.tolist() == [sample.gt_label.item() for sample in theirs['data_samples']]


def test_a_transform_that_writes_leaves_the_arrays_alone():
    def blacken(results):
        results['img'][:] = 0
        return results

    dataset = PipelineArrays(GLYPHS, pipeline=[blacken, PACK])
    before = dataset.arrays.images.clone()
    assert dataset[3]['inputs'].eq(0).all() and torch.equal(dataset.arrays.images, before)


def test_subsets_and_wrappers_find_the_right_images():
    arrays = TinyImages(seed=0)
    some = PipelineArrays(arrays, pipeline=[PACK], indices=[5, 2])
    assert len(some) == 2 and torch.equal(some[0]['inputs'], arrays[5]['inputs'][0])
    assert some[1]['data_samples'].gt_label.item() == arrays.labels[2]
    labels = np.array([0, 0, 0, 0, 0, 0, 0, 1])
    rare = PipelineArrays(ImageArrays(np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8),
                                   labels, ['often', 'seldom'], 'here'), pipeline=[PACK])
    balanced = ClassBalancedDataset(rare, oversample_thr=0.5)
    assert [balanced[i]['inputs'][0, 0, 0].item() for i in range(len(balanced))] == [*range(8), 7]


def test_images_on_another_device_are_refused():
    arrays = TinyImages(seed=0)
    arrays.images = arrays.images.to('meta')
    with pytest.raises(InputError, match="needs images on the CPU, these are on meta: say device='cpu'"):
        PipelineArrays(arrays)


def test_a_run_on_it_is_the_run_on_the_arrays(tmp_path):
    """Without augmentation the two paths see the same batches, so the students end equal."""
    teacher = write_teacher(tmp_path / 'teacher.pth')
    model = crrcd(teacher)
    model['data_preprocessor'].update(padding=None, flip=0.0)
    arrays = dict(type='mmcrrcd.TinyImages', seed=0)
    pipeline_loader = in_memory_loader(0, shuffle=True) | dict(
        dataset=dict(type='mmcrrcd.PipelineArrays', arrays=arrays, pipeline=[PACK]), collate_fn=dict(type='pseudo_collate'))
    in_memory = train(config(tmp_path / 'in_memory', model, epochs=1))
    piped = train(config(tmp_path / 'mmpretrain', model, epochs=1, train_dataloader=pipeline_loader))
    for name, value in in_memory.model.student.state_dict().items():
        torch.testing.assert_close(piped.model.student.state_dict()[name], value, rtol=1e-5, atol=1e-6)
