"""The cosine regression against a plain version."""
import numpy as np
import pytest
from distil_step import outputs, random
from mmcrrcd.models import CosineLoss


def test_equals_a_plain_version():
    student, teacher, batch = outputs(embedding_s=random(6, 4), embedding_t=random(6, 5, seed=1))
    loss = CosineLoss()
    loss.build(student, teacher)
    weight, bias = (p.detach().numpy() for p in loss.double().map.parameters())
    cosines = [s @ t / np.linalg.norm(s) / np.linalg.norm(t) for s, t in
               zip(student.embedding.numpy() @ weight.T + bias, teacher.embedding.numpy())]
    assert loss(student, teacher, batch).item() == pytest.approx(1 - np.mean(cosines), abs=1e-12)
