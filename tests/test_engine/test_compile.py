"""Compiled networks and losses: one graph each, none again after the first epoch, the same names and numbers."""
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from mmengine.hooks import Hook
from torch._dynamo.utils import counters

from mmcrrcd.engine import CompileHook
from mmcrrcd.engine.hooks.compile import heavy_parts
from mmcrrcd.models import CRRCD, EmbeddingNetwork, PlainNetwork
from mmcrrcd.registry import MODELS
from tiny import CLASSES, SIZE, STUDENT, config, crrcd, train, write_teacher


class Graphs(Hook):
    """Graphs and graph breaks up to the end of each epoch, validation included."""

    def __init__(self):
        self.seen = []

    def before_train_epoch(self, runner):
        self.seen.append((counters['stats']['unique_graphs'], sum(counters['graph_break'].values())))


@pytest.fixture
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def run(tmp_path, *hooks, epochs):
    cfg = config(tmp_path / str(len(hooks)), crrcd(write_teacher(tmp_path / 'teacher.pth')), epochs=epochs)
    cfg.train_dataloader.batch_size = 9                  # the last batch of an epoch is smaller
    return train(cfg, *hooks)


@pytest.mark.slow
def test_each_part_is_one_graph_and_nothing_is_compiled_after_the_first_epoch(tmp_path, fresh):
    graphs = Graphs()
    runner = run(tmp_path, CompileHook(backend='eager'), graphs, epochs=4)
    parts = heavy_parts(runner.model)
    assert len(parts) == 4
    first, *later = graphs.seen[1:]
    assert first[0] >= len(parts) and first[1] == 0
    assert later == [first] * len(later)


@pytest.mark.slow
def test_names_and_weights_are_those_of_the_run_that_was_not_compiled(tmp_path, fresh):
    compiled = run(tmp_path, CompileHook(backend='aot_eager'), Graphs(), epochs=2).model.state_dict()
    assert counters['stats']['unique_graphs'] >= 4
    plain = run(tmp_path, Graphs(), epochs=2).model.state_dict()
    assert list(compiled) == list(plain)
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4)


def plain_teacher() -> PlainNetwork:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 7, 3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(7 * 16, CLASSES)
    return PlainNetwork(nn.Sequential(*layers), classifier='3')


def embedding_teacher() -> EmbeddingNetwork:
    torch.manual_seed(0)
    return EmbeddingNetwork(nn.Sequential(nn.Conv2d(3, 7, 3, 4), nn.ReLU(), nn.Flatten()))


@pytest.mark.parametrize('adapter, alpha', [(plain_teacher, 0.5), (embedding_teacher, 0)])
def test_a_teacher_behind_an_adapter_is_compiled_and_answers_the_same(adapter, alpha, fresh):
    model = MODELS.build(dict(type=CRRCD, student=STUDENT, teacher=adapter(), input_size=SIZE, alpha=alpha))
    assert model.teacher.network in heavy_parts(model)
    for seed in range(3):
        images = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
        before = adapter().requires_grad_(False).eval().extract(images)
        if seed == 0:
            CompileHook(backend='eager').before_train(SimpleNamespace(model=model))
        after = model.forward_teacher(images)
        torch.testing.assert_close(after.embedding, before.embedding)
        assert alpha == 0 or torch.allclose(after.logits, before.logits)
    assert counters['stats']['unique_graphs'] == 1


def test_a_plain_classifier_is_compiled():
    model = MODELS.build(STUDENT)
    CompileHook(backend='eager').before_train(SimpleNamespace(model=model))
    assert model.backbone._compiled_call_impl is not None
