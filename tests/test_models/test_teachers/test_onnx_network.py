"""Teachers that end in their embedding: any module, and an ONNX file through onnxruntime."""
import copy
import sys

import pytest
import torch
from mmengine.device import get_device
from mmengine.hooks import Hook
from torch import nn

import tiny
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.classifier import load_classifier
from mmcrrcd.evaluation.embeddings import accuracy
from mmcrrcd.models import CRRCD, Distiller, EmbeddingNetwork, OnnxNetwork, PairPreprocessor, extract
from mmcrrcd.registry import MODELS
from test_models.test_distiller import build, fast_batch, losses, preprocessor

WIDTH = 12


class Face(nn.Module):
    """Ends in an embedding (N, 12); remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 7, 3, 2), nn.BatchNorm2d(7), nn.Linear(7, WIDTH)

    def forward(self, images):
        self.seen = images
        return self.fc(self.norm(self.conv(images)).relu().mean((2, 3)))


def face() -> Face:
    torch.manual_seed(3)
    network = Face()
    network.norm.running_mean.uniform_(-1, 1)
    network.norm.running_var.uniform_(0.5, 2)
    return network.eval()


def write_onnx(network: Face, path, images=('n', 3, 32, 32), answer='embedding', shape=(1, WIDTH), domain='', kind='FLOAT'):
    """``network`` as an ONNX file, operator by operator; the batch size of the output is stated as 1, as many files do."""
    onnx = pytest.importorskip('onnx', reason='needs onnx: pip install onnx')
    pytest.importorskip('onnxruntime', reason='needs onnxruntime: pip install onnxruntime')
    helper = onnx.helper
    norm = ('weight', 'bias', 'running_mean', 'running_var')
    tensors = {f'{part}.{name}': network.get_submodule(part).state_dict()[name].numpy()
               for part, names in dict(conv=norm[:2], norm=norm, fc=norm[:2]).items() for name in names}
    nodes = [helper.make_node('Conv', ['images', 'conv.weight', 'conv.bias'], ['a'], strides=[2, 2], domain=domain),
             helper.make_node('BatchNormalization', ['a', *(f'norm.{name}' for name in norm)], ['b'], epsilon=1e-5),
             helper.make_node('Relu', ['b'], ['c']), helper.make_node('GlobalAveragePool', ['c'], ['d']),
             helper.make_node('Flatten', ['d'], ['e']),
             helper.make_node('Gemm', ['e', 'fc.weight', 'fc.bias'], ['embedding'], transB=1)]
    graph = helper.make_graph(nodes, 'face', [helper.make_tensor_value_info('images', getattr(onnx.TensorProto, kind), images)],
                              [helper.make_tensor_value_info(answer, onnx.TensorProto.FLOAT, shape)],
                              [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()])
    versions = [helper.make_opsetid('', 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    path.write_bytes(helper.make_model(graph, opset_imports=versions, ir_version=8).SerializeToString())
    return path


@pytest.fixture
def onnx_file(tmp_path):
    return write_onnx(face(), tmp_path / 'face.onnx')


def one_line(error) -> str:
    assert '\n' not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize('bgr', [False, True])
def test_a_network_sees_the_images_that_it_was_trained_with(bgr):
    images = fast_batch(size=16)['inputs']
    teacher = EmbeddingNetwork(face(), mean=(120.0, 127.5, 130.0), std=128, bgr=bgr)
    reader = PairPreprocessor(mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 56.0])
    teacher.convert_from(reader)
    output = extract(teacher, reader.normalize(images))
    for channel, mean in enumerate((120.0, 127.5, 130.0)):
        expected = (images[:, 2 - channel if bgr else channel].double() - mean) / 128
        torch.testing.assert_close(teacher.network.seen[:, channel].double(), expected, rtol=0, atol=1e-5)
    assert output.logits is None and output.feature_maps == () and output.embedding.shape == (6, WIDTH)


def test_without_a_normalization_of_its_own_it_sees_what_the_preprocessor_makes():
    teacher, images = EmbeddingNetwork(face()), torch.randn(2, 3, 16, 16)
    teacher.convert_from(MODELS.build(preprocessor()))
    extract(teacher, images)
    assert torch.equal(teacher.network.seen, images)


def test_the_distiller_converts_and_scales_the_images():
    model = build(teacher=EmbeddingNetwork(face(), mean=127.5, std=128, bgr=True, input_size=20), alpha=0, num_negatives=6)
    data = fast_batch()
    model(**model.data_preprocessor(data, training=True), mode='loss')
    own = (data['inputs'].flip(1).float() - 127.5) / 128
    expected = nn.functional.interpolate(own, (20, 20), mode='bilinear', antialias=True)
    torch.testing.assert_close(model.teacher.network.seen, expected, rtol=0, atol=1e-5)


def test_a_checkpoint_of_such_a_teacher_is_loaded_and_folded(tmp_path):
    torch.save(face().state_dict(), tmp_path / 'face.pth')
    model = build(teacher=dict(type=EmbeddingNetwork, network=Face()), teacher_checkpoint=str(tmp_path / 'face.pth'), alpha=0)
    model.load_teacher()
    assert not isinstance(model.teacher.network.norm, nn.BatchNorm2d)
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(extract(model.teacher, images).embedding, face()(images))


@pytest.mark.parametrize('objective', [dict(kd=dict(type='mmcrrcd.KDLoss')), dict(dkd=dict(type='mmcrrcd.DKDLoss')),
                                       dict(lskd=dict(type='mmcrrcd.LSKDLoss')),
                                       dict(dist=dict(type='mmcrrcd.DISTLoss')), dict(wttm=dict(type='mmcrrcd.WTTMLoss')),
                                       dict(crcd=dict(type='mmcrrcd.CRCDLoss', num_samples=6, num_negatives=4))])
def test_losses_of_logits_are_refused_before_training(objective):
    with pytest.raises(InputError, match='compares logits, and the teacher ends in its embedding') as error:
        build(Distiller, teacher=EmbeddingNetwork(face()), objective=objective)
    assert next(iter(objective)) in one_line(error)
    with pytest.raises(InputError, match='alpha=0'):
        build(teacher=EmbeddingNetwork(face()))


@pytest.mark.parametrize('objective', [
    dict(crcd=dict(type='mmcrrcd.CRCDLoss', num_samples=6, num_negatives=4, gradient=False)),
    dict(crd=dict(type='mmcrrcd.CRDLoss', num_samples=6, num_negatives=4)), dict(rkd=dict(type='mmcrrcd.RKDLoss'))])
def test_losses_of_embeddings_are_not(objective):
    model = build(Distiller, teacher=EmbeddingNetwork(face()), objective=objective)
    assert losses(model)[f'loss_{next(iter(objective))}'].isfinite()


@pytest.mark.parametrize('settings, message', [
    (dict(mean=127.5), 'mean and std of EmbeddingNetwork go together'),
    (dict(mean=(1, 2), std=(1, 2)), 'mean of EmbeddingNetwork is a number or one for each of three channels'),
    (dict(mean=0, std=0), 'std of EmbeddingNetwork is positive')])
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(InputError, match=message) as error:
        EmbeddingNetwork(face(), **settings)
    one_line(error)


def test_a_network_that_gives_no_embedding_is_refused():
    with pytest.raises(InputError, match=r'a tensor \(N, D\), and the network gives \(2, 4, 30, 30\)') as error:
        build(teacher=EmbeddingNetwork(nn.Conv2d(3, 4, 3)), alpha=0)
    one_line(error)


def test_an_onnx_file_answers_as_the_network_it_was_made_of(onnx_file):
    images = torch.randn(5, 3, 32, 32).to(memory_format=torch.channels_last)
    answer = OnnxNetwork(onnx_file)(images)
    torch.testing.assert_close(answer, face()(images).detach())
    assert not answer.requires_grad
    network = copy.deepcopy(OnnxNetwork(onnx_file))        # as the hook for averaged weights copies the whole model
    torch.testing.assert_close(network(images), answer)


def onnx_teacher(file, **settings) -> dict:
    return dict(type='mmcrrcd.EmbeddingNetwork', network=dict(type='mmcrrcd.OnnxNetwork', file=str(file)), **settings)


def test_a_student_is_trained_by_an_onnx_file(tmp_path):
    path = write_onnx(face(), tmp_path / 'face.onnx', images=('n', 3, tiny.SIZE, tiny.SIZE))
    model = tiny.crrcd('', alpha=0) | dict(teacher=onnx_teacher(path, mean=127.5, std=128), teacher_checkpoint=None)
    first, last = [], []
    runner = tiny.train(tiny.config(tmp_path, model, epochs=3), Remember(first, last))
    assert runner.iter == 9 and not any('network' in key for key in runner.model.state_dict())
    assert all(not torch.equal(a, b) for a, b in zip(first, last))


class Remember(Hook):
    """The student's weights before and after."""

    def __init__(self, first: list, last: list):
        self.first, self.last = first, last

    def before_train(self, runner):
        self.first.extend(p.detach().clone() for p in runner.model.parameters())

    def after_train(self, runner):
        self.last.extend(p.detach().clone() for p in runner.model.parameters())


def test_the_loss_is_that_with_the_network_the_file_was_made_of(onnx_file):
    settings = dict(mean=(120.0, 127.5, 130.0), std=128, bgr=True)
    seen = []
    for teacher in (onnx_teacher(onnx_file, **settings), EmbeddingNetwork(face(), **settings)):
        model = build(teacher=teacher, alpha=0, num_negatives=6)
        model.load_teacher()
        losses(model)                                      # fills the queue
        torch.manual_seed(1)                               # the anchors
        seen.append(losses(model)['loss_rcd'])
    assert seen[0] > 0
    torch.testing.assert_close(*seen)


def test_tools_that_look_at_a_teacher_convert_the_images_too(tmp_path):
    path = write_onnx(face(), tmp_path / 'face.onnx', images=('n', 3, tiny.SIZE, tiny.SIZE))
    model = tiny.crrcd('', alpha=0) | dict(teacher=onnx_teacher(path, mean=127.5, std=128, bgr=True), teacher_checkpoint=None)
    tiny.config(tmp_path, model).dump(tmp_path / 'config.py')
    classifier = load_classifier(str(tmp_path / 'config.py'), '', teacher=True)
    images = fast_batch(size=tiny.SIZE)['inputs'].to(get_device())
    expected = face()((images.cpu().flip(1).float() - 127.5) / 128)
    torch.testing.assert_close(classifier(images).embedding.cpu(), expected.detach())
    with pytest.raises(InputError, match='the teacher ends in its embedding: it knows no classes'):
        accuracy(classifier, tiny.TinyImages(0), 'the teacher')


@pytest.mark.parametrize('changes, message', [
    (dict(images=(1, 3, 32, 32)), 'takes batches of 1 only'),
    (dict(answer='d', shape=('n', 7, 1, 1)), r'should have one output, an embedding \(N, D\) in float32, and has d: .* 1, 1\)'),
    (dict(domain='somebodys.own'), 'onnxruntime cannot run'),
    (dict(kind='DOUBLE'), 'onnxruntime cannot run')])
def test_files_that_cannot_serve_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as error:
        OnnxNetwork(write_onnx(face(), tmp_path / 'face.onnx', **changes))
    assert 'face.onnx' in one_line(error)


def test_what_is_no_onnx_file_is_refused(tmp_path):
    pytest.importorskip('onnxruntime', reason='needs onnxruntime: pip install onnxruntime')
    with pytest.raises(InputError, match='there is no ONNX file'):
        OnnxNetwork(tmp_path / 'face.onnx')
    (tmp_path / 'face.onnx').write_bytes(b'not a network')
    with pytest.raises(InputError, match='onnxruntime cannot run') as error:
        OnnxNetwork(tmp_path / 'face.onnx')
    one_line(error)


def test_an_onnx_file_that_answers_nan_is_refused_before_training(tmp_path):
    network = face()
    torch.nn.init.constant_(network.fc.weight, torch.nan)
    with pytest.raises(InputError, match='face.onnx is of no use: the embeddings that it gives are not finite'):
        build(CRRCD, teacher=onnx_teacher(write_onnx(network, tmp_path / 'face.onnx')), alpha=0)


def test_images_of_another_size_are_refused_before_training(onnx_file):
    teacher = onnx_teacher(onnx_file)
    with pytest.raises(InputError, match=r'takes images \(3, 32, 32\), got \(3, 48, 48\)') as error:
        build(CRRCD, teacher=teacher, alpha=0, input_size=48)
    one_line(error)
    build(CRRCD, teacher=teacher | dict(input_size=32), alpha=0, input_size=48)


def test_a_checkpoint_for_an_onnx_file_is_refused(onnx_file, tmp_path):
    torch.save(face().state_dict(), tmp_path / 'face.pth')
    model = build(teacher=onnx_teacher(onnx_file), alpha=0, teacher_checkpoint=str(tmp_path / 'face.pth'))
    with pytest.raises(InputError, match='not a checkpoint of this teacher'):
        model.load_teacher()


def test_a_missing_onnxruntime_is_told_in_one_line(onnx_file, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(InputError, match=r"onnxruntime is missing: pip install 'mmcrrcd\[onnx\]'") as error:
        OnnxNetwork(onnx_file)
    one_line(error)
