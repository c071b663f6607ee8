"""One step of a method in a real distiller: other widths than the teacher's, and half its resolution."""
import copy
from collections import OrderedDict

import torch
from mmcrrcd.models import Distiller, PairPreprocessor, PlainNetwork
from mmcrrcd.structures import Batch, NetworkOutput
from tiny import CLASSES, MEAN, SIZE, STD, STUDENT, TEACHER
from torch import Tensor, nn


def build(loss: dict, teacher=TEACHER, resolution: int | None = 8) -> Distiller:
    torch.manual_seed(0)
    return Distiller(student=STUDENT, teacher=copy.deepcopy(teacher), objective=dict(method=loss), cls_weight=0,
                     input_size=SIZE, data_preprocessor=PairPreprocessor(mean=MEAN, std=STD, resolution=resolution))


def step(loss: dict, resolution: int | None = 8, amp: bool = False) -> tuple[Distiller, float]:
    """Builds a distiller with nothing but ``loss`` in its objective, takes a step, and checks that what should learn did.

    Returns the distiller and the loss before the step.
    """
    model = build(loss, resolution=resolution).train()
    inputs = torch.randint(0, 256, (8, 3, SIZE, SIZE), dtype=torch.uint8)
    data = model.data_preprocessor(dict(inputs=inputs, labels=torch.arange(8) % CLASSES, index=torch.arange(8)), training=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.autocast('cpu', torch.bfloat16, enabled=amp):
        value = model(**data, mode='loss')['loss_method']
    assert value.shape == () and value.dtype == torch.float32 and value.isfinite() and value != 0
    value.backward()
    learning = dict(stem=model.student.backbone.stem[0].weight, **dict(model.losses.named_parameters()))
    before = {name: parameter.detach().clone() for name, parameter in learning.items()}
    optimizer.step()
    for name, parameter in learning.items():
        assert parameter.grad.isfinite().all() and not torch.equal(parameter, before[name]), f'{name} has not learned'
    assert all(parameter.grad is None for parameter in model.teacher.parameters())
    return model, value.item()


def network_without_maps() -> PlainNetwork:
    """A teacher that gives embedding and logits only."""
    return PlainNetwork(nn.Sequential(OrderedDict(flatten=nn.Flatten(), fc=nn.Linear(3 * SIZE * SIZE, CLASSES))))


def outputs(maps_s=(), maps_t=(), embedding_s=None, embedding_t=None) -> tuple[NetworkOutput, NetworkOutput, Batch]:
    """Arguments of a loss, from what it looks at."""
    def output(maps, embedding):
        rows = len(maps[0]) if embedding is None else len(embedding)
        embedding = torch.zeros(rows, 1) if embedding is None else embedding
        return NetworkOutput(tuple(maps), embedding, torch.zeros(rows, CLASSES))

    student, teacher = output(maps_s, embedding_s), output(maps_t, embedding_t)
    return student, teacher, Batch(torch.zeros(len(student.logits), dtype=torch.long), None)


def random(*shape: int, seed: int = 0) -> Tensor:
    """Normal, float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
