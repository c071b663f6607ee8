"""Every method beside CRRCD on every pair of the paper's tables, the student at 32 and at 8×8 px: gradients, or one line.

All but one pair are slow: each method is looked at once on a small one, and trained by its config in ``test_configs.py``.
The networks of a pair are built once. The teacher is asked once, and its answers stand in for it; so a method costs a pass of
the student and the method itself.
"""
import inspect
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub
from test_configs import PAIRS, networks_of, shrink
from torch import nn
from torch.utils._pytree import tree_map_only

from experiments.compose import Recipe, compose
from mmcrrcd.errors import InputError
from mmcrrcd.models.networks import linear_classifier
from mmcrrcd.models.algorithms.sskd import rotations
from mmcrrcd.models.networks import ask_for_pre_activations, extract
from mmcrrcd.registry import LOSSES, MODELS

ROOT = Path(__file__).parents[1]
METHODS = sorted(path.stem for path in (ROOT / 'configs' / 'baselines').glob('*.py'))
BATCH = 4
SMALL = next(pair for pair in PAIRS if pair.startswith('wrn40_2_wrn16_2'))
# method -> epochs to look at and the losses in them, the classification loss aside; elsewhere the method's own, in epoch 0
STAGES = dict(
    ab={0: {'loss_ab'}, 30: set()}, fsp={0: {'loss_fsp'}, 30: set()}, ft={0: {'loss_ft'}, 30: {'loss_ft'}},
    sskd={0: {'loss_head'}, 60: {'loss_kd', 'loss_transformed', 'loss_contrast'}},
    crcd={0: {'loss_kd', 'loss_crcd'}, 230: set()}, ekd={0: {'loss_guided', 'loss_teacher'}})
ALONE = [('ab', 0), ('fsp', 0), ('ft', 0), ('sskd', 0), ('simkd', 0)]              # without the classification loss
NOT_FOR_THE_STUDENT = [('ft', 0, 'loss_ft'), ('sskd', 0, 'loss_head'), ('ekd', 0, 'loss_teacher')]
EQUAL_CHANNELS = ('wrn40_2_wrn16_2', 'resnet56_resnet20', 'resnet110_resnet20', 'resnet110_resnet32', 'resnet32x4_resnet8x4',
                  'vgg13_vgg8')
ONE_PIXEL = ('vgg8', 'shufflenetv1', 'shufflenetv2')                  # the last feature maps of an image of 8


def refusal(method: str, pair: str, resolution: int | None) -> str | None:
    """How the line begins that refuses a method."""
    if method == 'fsp' and pair not in EQUAL_CHANNELS:
        return 'FSPLoss needs a teacher and a student with feature maps of the same channels'
    if method == 'ft' and resolution == 8 and pair.endswith(ONE_PIXEL):
        return 'FTLoss compares how factors spread over pixels'
    return None


class Answers(nn.Module):
    """Says of any images what ``teacher`` has said of a random batch and its rotations."""

    def __init__(self, teacher: nn.Module):
        super().__init__()
        ask_for_pre_activations(teacher)
        images = torch.randn(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.said = extract(teacher.eval(), rotations(images))
        self.classifier = linear_classifier(teacher)

    def teacher_classifier(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.classifier

    def extract(self, images: torch.Tensor):
        return tree_map_only(torch.Tensor, lambda x: x[:len(images)], self.said)


@pytest.fixture(scope='module', params=[
    pytest.param(pair, marks=[] if pair == SMALL else [pytest.mark.slow]) for pair in PAIRS])
def networks(request):
    """Name of the pair, its student, its teacher and the teacher's answers."""
    torch.manual_seed(0)
    pair = networks_of(Path(request.param))
    model = compose('kd', pair, Recipe()).model
    if pair[0] == 'wrn50':
        shrink(model.teacher)
    student, teacher = MODELS.build(model.student), MODELS.build(model.teacher)
    return pair, student, teacher, Answers(teacher)


@pytest.fixture
def hub():
    hub = MessageHub.get_current_instance()
    yield hub
    hub.update_info('epoch', 0)


@pytest.mark.parametrize('resolution', [pytest.param(None, marks=pytest.mark.slow), 8])
@pytest.mark.parametrize('method', METHODS)
def test_teaches_the_student_or_is_refused(networks, hub, method, resolution):
    torch.manual_seed(0)
    pair, student, teacher, answers = networks
    student.requires_grad_()                             # whatever the method before has done to it
    student.backbone.gives_pre_activations = False
    settings = compose(method, pair, Recipe(resolution=resolution)).model.to_dict()
    settings |= dict(student=student, teacher=teacher if method == 'ekd' else answers, teacher_checkpoint=None)
    for loss in settings.get('objective', {}).values():
        loss.update(num_samples=BATCH) if 'num_samples' in loss else None          # a memory for all images takes its time
    if line := refusal(method, '_'.join(pair), resolution):
        with pytest.raises(InputError, match=f'^{line}[^\n]*$'):
            MODELS.build(settings)
        return
    model = MODELS.build(settings).train()
    generator = torch.Generator().manual_seed(1)
    data = dict(inputs=torch.randint(256, (BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator),
                labels=torch.tensor([3, 99, 0, 3]), index=torch.arange(BATCH))
    parameters = {key: value for key, value in model.named_parameters() if value.requires_grad}
    stem = next(name for name in parameters if name.startswith('student.backbone.stem'))
    for epoch, names in STAGES.get(method, {0: {f'loss_{method}'}}).items():
        hub.update_info('epoch', epoch)
        parts = model(**model.data_preprocessor(dict(data), training=True), mode='loss')
        losses = {name: value for name, value in parts.items() if name.startswith('loss')}
        assert losses.keys() - {'loss_cls'} == names and ('loss_cls' in losses) == ((method, epoch) not in ALONE)
        assert all(value.isfinite() for value in losses.values())
        for name in names:
            gradients = torch.autograd.grad(losses[name], list(parameters.values()), retain_graph=True, allow_unused=True)
            gradients = {key: value for key, value in zip(parameters, gradients) if value is not None}
            assert gradients and all(value.isfinite().all() for value in gradients.values())
            if (method, epoch, name) in NOT_FOR_THE_STUDENT:
                assert not any(key.startswith('student.') for key in gradients)
            else:
                assert gradients[stem].any()


@pytest.mark.parametrize('loss, constants', [
    ('KDLoss', dict(temperature=4)), ('DKDLoss', dict(temperature=4, alpha=1, beta=8)),
    ('CRDLoss', dict(dim=128, num_negatives=16_384, temperature=0.07, momentum=0.5)),
    ('CRCDLoss', dict(dim=128, num_negatives=500, temperature=0.05, momentum=0.5)),
    ('RKDLoss', dict(distance=25, angle=50)), ('CCLoss', dict(dim=128)), ('VIDLoss', dict(variance=5, eps=1e-5)),
    ('ABLoss', dict(margin=1)),
    ('FTLoss', dict(paraphraser_epochs=30, rate=0.5)), ('LSKDLoss', dict(temperature=2)),
    ('DISTLoss', dict(beta=2, gamma=2, temperature=4)), ('WTTMLoss', dict(gamma=0.1)),
    ('ITRDLoss', dict(correlation=2, mutual=1, alpha=1.01)), ('SRDLoss', dict(exponent=4))])
def test_constants_are_the_published_ones(loss, constants):
    """Those that the configs leave to the losses' defaults."""
    parameters = inspect.signature(LOSSES.get(f'mmcrrcd.{loss}')).parameters
    assert {name: parameters[name].default for name in constants} == constants
