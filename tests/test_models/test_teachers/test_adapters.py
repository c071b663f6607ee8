"""Modules from anywhere as teachers: by name, without naming their last layer, and with the images they were trained with."""
import types

import pytest
import torch
import torchvision
from mmengine.registry import DefaultScope
from mmpretrain.models import BaseClassifier, TimmClassifier
from tiny import CLASSES, MEAN, STD, network
from torch import nn

from mmcrrcd.errors import InputError
from mmcrrcd.models import CRRCD, Distiller, EmbeddingNetwork, PlainNetwork, extract

IMAGES = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PREPROCESSOR = dict(type='mmcrrcd.PairPreprocessor', mean=MEAN, std=STD, resolution=16)


class Net(nn.Module):
    """Ends in logits, or, as Hugging Face's networks, in an object with logits."""

    def __init__(self, in_an_object: bool = False):
        super().__init__()
        self.conv, self.hidden, self.fc = nn.Conv2d(3, 7, 3, 4), nn.Linear(7, 6), nn.Linear(6, CLASSES)
        self.in_an_object = in_an_object

    def forward(self, images):
        self.seen = images
        logits = self.fc(self.hidden(self.conv(images).mean((2, 3))).relu())
        return types.SimpleNamespace(logits=logits, hidden_states=None) if self.in_an_object else logits


class LikeTimm(TimmClassifier):
    """mmpretrain's class around a network that is here: its own asks for timm before anything else."""

    def __init__(self):
        BaseClassifier.__init__(self)
        self.model = Net()
        self._register_state_dict_hook(self._remove_state_dict_prefix)
        self._register_load_state_dict_pre_hook(self._add_state_dict_prefix)


def distiller(teacher, kind=Distiller, **settings):
    torch.manual_seed(0)
    objective = {} if kind is CRRCD else dict(objective=dict(kd=dict(type='mmcrrcd.KDLoss')))
    return kind(network(), teacher, data_preprocessor=PREPROCESSOR, **objective, **settings)


def parts_of(model):
    model.init_weights()
    data = model.data_preprocessor(dict(inputs=IMAGES, labels=torch.arange(4), index=torch.arange(4)), training=True)
    return model(**data, mode='loss')


@pytest.mark.parametrize('name, last', [
    ('resnet18', 'fc'), ('vgg11', 'classifier.6'), ('mobilenet_v3_small', 'classifier.3'), ('convnext_tiny', 'classifier.2'),
    ('vit_b_32', 'heads.head'), ('swin_t', 'head'), ('googlenet', 'fc')])
def test_the_last_linear_layer_of_torchvisions_networks(name, last):
    with torch.device('meta'):                           # no weights are made
        kinds = dict(init_weights=False) if name == 'googlenet' else {}
        assert PlainNetwork(getattr(torchvision.models, name)(**kinds)).classifier == last


@pytest.mark.parametrize('make', [
    lambda: dict(type='mmcrrcd.PlainNetwork', network=dict(type='torchvision.models.resnet18', num_classes=CLASSES)),
    lambda: dict(type='torchvision.models.resnet18', num_classes=CLASSES), lambda: Net(), lambda: Net(in_an_object=True),
    LikeTimm])
def test_they_teach_by_name_or_as_they_are(make):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = distiller(make())
    assert isinstance(model.teacher, PlainNetwork)
    parts = parts_of(model)
    logits = extract(model.teacher, model.data_preprocessor.normalize(IMAGES)).logits
    assert logits.shape == (4, CLASSES) and parts['loss_kd'] > 0


@pytest.mark.parametrize('make', [LikeTimm, Net])
def test_their_checkpoints(make, tmp_path):
    torch.manual_seed(1)
    theirs = make()
    torch.save(theirs.state_dict(), tmp_path / 'theirs.pth')
    model = distiller(make(), teacher_checkpoint=str(tmp_path / 'theirs.pth'))
    parts_of(model)
    images = model.data_preprocessor.normalize(IMAGES)
    torch.testing.assert_close(extract(model.teacher, images).logits, extract(PlainNetwork(theirs.eval()), images).logits,
                               rtol=1e-4, atol=1e-5)


def test_a_teacher_of_other_classes_teaches_all_that_compares_no_logits():
    big = dict(type='torchvision.models.resnet18', num_classes=1000)
    model = distiller(big, CRRCD, alpha=0, num_negatives=8, num_anchors=2)
    parts_of(model)
    assert parts_of(model)['loss_rcd'] > 0
    with pytest.raises(InputError, match=r'1000 classes, the student 4, and kd compares their logits: .*alpha=0') as error:
        distiller(big, CRRCD)
    assert '\n' not in str(error.value)


def test_a_module_sees_the_images_that_it_was_trained_with():
    model = distiller(PlainNetwork(Net(), mean=(1, 2, 3), std=(4, 5, 6), bgr=True, input_size=(8, 16)))
    teacher = model.teacher
    teacher.extract(model.data_preprocessor.normalize(IMAGES))
    expected = (IMAGES.flip(1) - torch.tensor([1., 2, 3])[:, None, None]) / torch.tensor([4., 5, 6])[:, None, None]
    expected = nn.functional.interpolate(expected, (8, 16), mode='bilinear', antialias=True)
    torch.testing.assert_close(teacher.network.seen, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('make, match', [
    (lambda: PlainNetwork(nn.Conv2d(3, 4, 3)), r'the teacher \(Conv2d\) has no linear layer: name'),
    (lambda: PlainNetwork(Net(), classifier='head'), "has no layer 'head'"),
    (lambda: PlainNetwork(Net(), mean=3), 'mean and std of PlainNetwork go together'),
    (lambda: PlainNetwork(Net(), input_size=0), 'input_size of PlainNetwork is a number of pixels'),
    (lambda: distiller(nn.Sequential(nn.Linear(32, 4))), r'to logits \(N, classes\), and its network gives \(2, 3, 32, 4\)'),
    (lambda: distiller(PlainNetwork(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4), nn.Unflatten(1, (2, 2)), nn.Flatten(),
                                                  nn.ReLU(), nn.Linear(4, 6), nn.Unflatten(1, (2, 3)), nn.Flatten(),
                                                  nn.AdaptiveAvgPool1d(4)))), "the layer '5' .* does not make its logits"),
    (lambda: distiller(EmbeddingNetwork(Net(in_an_object=True))), 'the network gives a SimpleNamespace')])
def test_what_cannot_teach_is_refused_in_one_line(make, match):
    with pytest.raises(InputError, match=match) as error:
        make()
    assert '\n' not in str(error.value)

