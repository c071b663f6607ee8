"""The examples in docstrings do what they say."""
import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
NEED_FILES = {'mmcrrcd.datasets.faces', 'mmcrrcd.datasets.image_folder', 'mmcrrcd.datasets.subset', 'mmcrrcd.inference',
              'mmcrrcd.models.algorithms.simkd', 'mmcrrcd.models.teachers.adapters', 'mmcrrcd.zoo'}  # or networks of others
MODULES = sorted('.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
                 for path in (ROOT / 'mmcrrcd').rglob('*.py') if '>>>' in path.read_text(encoding='utf-8'))
RUN = [name for name in MODULES if name not in NEED_FILES]


@pytest.mark.parametrize('name', RUN)
def test_examples_of_docstrings(name):
    result = doctest.testmod(importlib.import_module(name), extraglobs=dict(torch=torch, np=np),
                             optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert result.attempted and not result.failed
