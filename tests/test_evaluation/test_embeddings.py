"""Networks of checkpoints of every kind, and the images they are shown."""
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny import CLASSES, MEAN, SIZE, STD, STUDENT, TinyImages, config, crrcd, pipeline_loader, write_folder, write_teacher
from torch import nn

from mmcrrcd.datasets import ImageArrays, downsample
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.classifier import Classifier, load_classifier
from mmcrrcd.evaluation.data import NAMED, named_images, own_images, training_side
from mmcrrcd.evaluation.embeddings import accuracy, embed, embed_blocks, embed_images
from mmcrrcd.models.networks import extract
from mmcrrcd.registry import DATASETS, MODELS


def write(cfg: Config, path) -> str:
    cfg.dump(path)
    return str(path)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A CRRCD model of random weights with its checkpoint, the teacher's, and its config, at 8 of 16×16 px."""
    folder = tmp_path_factory.mktemp('run')
    teacher = write_teacher(folder / 'teacher.pth')
    cfg = config(folder, crrcd(teacher))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    torch.manual_seed(1)
    model.init_weights()
    batch = TinyImages(seed=0).__getitems__(range(8))
    for _ in range(20):                                  # batch norms as after a training, not the identity
        extract(model.student, model.data_preprocessor(batch)['inputs'].low)
    torch.save(dict(state_dict=model.state_dict()), folder / 'run.pth')
    return dict(model=model.eval(), config=write(cfg, folder / 'run.py'), checkpoint=str(folder / 'run.pth'),
                teacher=str(teacher), folder=folder)


def exported(run, resolution: int | None) -> str:
    """A config as tools/export_student.py writes it for arrays: files are BGR, so it swaps."""
    steps = [dict(type='LoadImageFromFile'), dict(type='mmcrrcd.StudentView', resolution=resolution, image_size=SIZE),
             dict(type='PackInputs')]
    preprocessor = dict(type='ClsDataPreprocessor', mean=MEAN, std=STD, to_rgb=True)
    cfg = Config(dict(model=STUDENT, image_size=SIZE, data_preprocessor=preprocessor,
                      test_dataloader=dict(dataset=dict(type='CustomDataset', data_root='x', pipeline=steps))))
    return write(cfg, run['folder'] / f'exported_{resolution}.py')


@pytest.mark.parametrize('kind', ['training', 'exported'])
def test_student_says_what_it_says_in_the_test_of_its_training(run, kind):
    path = run['config'] if kind == 'training' else exported(run, 8)
    network = load_classifier(path, run['checkpoint'], side=SIZE)
    data = TinyImages(seed=1)
    batch = data.__getitems__(range(len(data)))
    expected = run['model'].val_step(batch)[0]['logits']
    assert expected.std(0).min() > 0.01                  # the images make a difference
    embedding, logits = embed(network, data, 'x', batch=7)
    torch.testing.assert_close(logits.cpu(), expected, atol=1e-5, rtol=1e-5)
    low = run['model'].data_preprocessor(batch)['inputs'].low
    torch.testing.assert_close(embedding.cpu(), extract(run['model'].student, low).embedding, atol=1e-5, rtol=1e-5)
    assert accuracy(network, data, 'x') == pytest.approx(100 * (expected.argmax(1) == data.labels).float().mean().item())


def test_embeddings_of_blocks_are_those_of_all_images(run):
    network, data = load_classifier(run['config'], run['checkpoint']), TinyImages(seed=1)
    images = np.tile(data.images.numpy(), (6, 1, 1, 1))                  # 144, more than a batch
    expected, _ = embed(network, ImageArrays(images, np.zeros(144, int), ['face'], 'faces'), 'x')
    torch.testing.assert_close(embed_images(network, images, 'x'), expected, atol=1e-5, rtol=1e-5)
    parts = list(embed_blocks(network, iter([images[:130], images[130:]])))
    assert [len(part) for part in parts] == [128, 2, 14]
    torch.testing.assert_close(torch.cat(parts), expected, atol=1e-5, rtol=1e-5)


def test_flip_test_is_the_sum_of_the_embeddings_of_image_and_mirror(run):
    network, images = load_classifier(run['config'], run['checkpoint']), TinyImages(seed=1).images.numpy()
    plain, mirrored = (embed_images(network, x, 'x') for x in (images, np.ascontiguousarray(images[:, :, ::-1])))
    assert (plain - mirrored).abs().max() > 0.01
    torch.testing.assert_close(embed_images(network, images, 'x', flip=True), plain + mirrored, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('checkpoint', ['its own file', ''])
def test_teacher_sees_the_images_as_they_are(run, checkpoint):
    network = load_classifier(run['config'], checkpoint and run['teacher'], teacher=True)
    data = TinyImages(seed=1)
    pixels = data.images.permute(0, 3, 1, 2)
    high = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    expected = extract(run['model'].teacher, high)          # folded, hence the tolerance
    torch.testing.assert_close(network(pixels).logits, expected.logits, atol=1e-3, rtol=1e-3)
    assert network.path_of(data.images) == '16 x 16'


def test_networks_stay_as_they_were(run):
    network = load_classifier(run['config'], run['checkpoint'])
    before = {name: value.clone() for name, value in network.network.state_dict().items()}
    embedding, _ = embed(network, TinyImages(seed=1), 'x')
    assert not embedding.requires_grad and not any(p.requires_grad for p in network.network.parameters())
    assert not any(module.training for module in network.network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.network.state_dict().items())


class Seen(nn.Module):
    """Keeps what it is shown."""

    def extract(self, images):
        self.images = images
        raise RuntimeError('enough')


def seen(images, **settings) -> torch.Tensor:
    network = Seen()
    settings = dict(normalization=dict(mean=[0.] * 3, std=[1.] * 3), side=16, downsampling={}) | settings
    with pytest.raises(InputError, match=r'the network cannot take images of \d+ x \d+ pixels: .*enough'):
        Classifier(network, **settings)(images)
    return network.images


def test_path_of_the_images():
    """To the training's size, to the resolution, back; each time rounded to uint8, by the transform of the training."""
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    base = downsample(images, 16)
    small = downsample(base, 8, 'nearest')
    nearest = dict(resolution=8, interpolation='nearest')
    for settings, expected in (
            (dict(), base), (dict(downsampling=nearest), small),
            (dict(downsampling=nearest, scale_to=12), downsample(small, 12)),
            (dict(downsampling=nearest | dict(upsample=True)), downsample(base, 8, 'nearest', upsample=True)),
            (dict(normalization=dict(mean=[0.] * 3, std=[1.] * 3, to_rgb=True)), base.flip(1))):
        assert torch.equal(seen(images, **settings), expected.float())
    assert torch.equal(seen(base), base.float())


@pytest.mark.parametrize('downsampling, at, path', [
    ({}, {}, '32 x 32 -> 16 x 16'),
    (dict(resolution=8), {}, '32 x 32 -> 16 x 16 -> 8 x 8'),
    (dict(resolution=8, upsample=True), {}, '32 x 32 -> 16 x 16 -> 8 x 8 -> 16 x 16'),
    (dict(resolution=(8, 6)), {}, '32 x 32 -> 16 x 16 -> 8 x 6'),
    (dict(resolution=8), dict(resolution=12), '32 x 32 -> 16 x 16 -> 12 x 12'),
    (dict(resolution=8), dict(resolution=12, scale_to=8), '32 x 32 -> 16 x 16 -> 12 x 12 -> 8 x 8'),
    (dict(resolution=8, upsample=True), dict(resolution=12), '32 x 32 -> 16 x 16 -> 12 x 12 -> 16 x 16'),
])
def test_path_in_words(downsampling, at, path):
    network = Classifier(Seen(), {}, 16, downsampling)
    network = network.at(**at) if at else network
    assert network.path_of(torch.zeros(1, 32, 32, 3)) == path


@pytest.mark.parametrize('bgr', [False, True])
def test_channels_come_in_the_order_of_the_training(run, bgr):
    """Files are read as BGR; a network that was trained without a swap wants our RGB arrays swapped."""
    steps = [dict(type='LoadImageFromFile')] if bgr else []
    model = dict(crrcd(run['teacher']), data_preprocessor=dict(type='mmcrrcd.PairPreprocessor', mean=MEAN, std=STD))
    cfg = config(run['folder'], model, test_dataloader=dict(dataset=dict(type='CustomDataset', pipeline=steps)))
    network = load_classifier(write(cfg, run['folder'] / f'order_{bgr}.py'), run['checkpoint'])
    assert network.normalization['to_rgb'] == bgr


def test_own_images_of_a_pipeline_are_those_of_the_arrays(run):
    files = write_folder(run['folder'] / 'files', seed=1)
    cfg = config(run['folder'], crrcd(run['teacher']), test_dataloader=pipeline_loader(files, training=False))
    found, expected = own_images(write(cfg, run['folder'] / 'files.py')), TinyImages(seed=1)
    order = np.argsort(expected.labels.numpy(), kind='stable')           # by folders
    assert torch.equal(found.images, expected.images[order]) and torch.equal(found.labels, expected.labels[order])
    assert found.metainfo['classes'] == expected.metainfo['classes']
    assert torch.equal(own_images(run['config']).images, expected.images)


def test_a_config_without_a_test_is_read_by_its_training(run):
    """As those for faces are."""
    cfg = config(run['folder'], crrcd(run['teacher']), val_dataloader=None, test_dataloader=None)
    del cfg.model.input_size
    cfg.train_dataloader.dataset = dict(type='mmcrrcd.FaceFolder', data_root='x', image_size=96)
    path = write(cfg, run['folder'] / 'faces.py')
    assert load_classifier(path, run['checkpoint']).side == 96
    with pytest.raises(InputError, match='faces.py has no test images'):
        own_images(path)


@pytest.mark.parametrize('model, dataset, side', [
    (dict(), dict(type='mmcrrcd.CIFAR100Arrays'), 32),
    (dict(), dict(type='mmcrrcd.STL10Arrays'), 96),
    (dict(), dict(type='mmcrrcd.PipelineArrays', arrays=dict(type='mmcrrcd.TinyImageNetArrays'), pipeline=[]), 64),
    (dict(), dict(type='X', pipeline=[dict(type='ResizeEdge', scale=72), dict(type='CenterCrop', crop_size=64)]), 64),
    (dict(), dict(type='X', pipeline=[dict(type='Resize', scale=(224, 224))]), 224),
    (dict(input_size=48), dict(type='X', pipeline=[dict(type='CenterCrop', crop_size=64)]), 48),
    (dict(), dict(type='mmcrrcd.FaceFolder', image_size=96), 96),
    (dict(), dict(type='mmcrrcd.RecordFaces'), 112),
])
def test_training_side(model, dataset, side):
    assert training_side(Config(dict(model=model, val_dataloader=dict(dataset=dataset)))) == side


def test_named_images_are_looked_for_where_they_should_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for root in ('data/cifar100', 'elsewhere'):
        folder = tmp_path / root / 'cifar-100-python'
        folder.mkdir(parents=True)
        for name in ('train', 'test', 'meta'):
            (folder / name).write_bytes(b'damaged')
    with pytest.raises(InputError, match='data/cifar100/cifar-100-python/train is not a readable'):
        named_images('cifar100', 'train')
    with pytest.raises(InputError, match='elsewhere/cifar-100-python/test is not a readable'):
        named_images('cifar100', 'test', 'elsewhere')


@pytest.mark.parametrize('name', NAMED)
def test_named_data_sets_exist(name):
    assert issubclass(DATASETS.get(f'mmcrrcd.{NAMED[name]}'), ImageArrays)


def test_bad_input(run):
    with pytest.raises(FileNotFoundError, match='there is no config nothing.py'):
        load_classifier('nothing.py', run['checkpoint'])
    with pytest.raises(InputError, match='is not a checkpoint of this teacher'):
        load_classifier(run['config'], run['checkpoint'], teacher=True)
    with pytest.raises(InputError, match='the model of .* has no teacher'):
        load_classifier(exported(run, 8), run['checkpoint'], teacher=True)
    data = TinyImages(seed=1)
    data.metainfo = dict(classes=('one', ) * (CLASSES + 1))
    with pytest.raises(InputError, match='student knows 4 classes, the data have 5'):
        accuracy(load_classifier(run['config'], run['checkpoint']), data, 'student')
