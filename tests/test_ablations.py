"""The list of ablations: what is in it, and that each trains."""
import inspect
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.logging import MessageHub
from tiny import CLASSES, SIZE, crrcd, write_teacher

from mmcrrcd.models import CRRCD
from mmcrrcd.registry import MODELS

FILE = Path(__file__).parents[1] / 'configs' / 'ablations' / 'crrcd.py'
ABLATIONS = Config.fromfile(FILE).to_dict()['ablations']
DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(CRRCD.__init__).parameters.items()}


def values(name: str) -> set:
    """What a setting takes, the default included, where nothing else but the form is changed."""
    return {settings[name] for settings in ABLATIONS.values() if set(settings) - {'relation'} == {name}} | {DEFAULTS[name]}


def test_what_is_compared():
    assert values('num_negatives') == {64, 128, 256, 512, 1024, None}
    assert values('tau') == {0.02, 0.05, 0.07, 0.08, 0.1, 0.2, 0.3}
    assert values('beta') == {0, 0.05, 0.2, 0.5, 1, 2} and values('alpha') == {0, 0.5}
    assert values('dim') == {None, 64, 256}
    assert values('sampling') == {'supervised', 'unsupervised'}
    assert values('num_anchors') == {1, 8, 16, 32, None}
    learned = [s for s in ABLATIONS.values() if s.get('relation') == 'learned']
    forms = {(s.get('normalizer', 'softmax'), s.get('center', 'anchor')) for s in learned}
    assert forms == {('softmax', 'anchor'), ('softmax', None), ('batch', 'anchor'), ('batch', None), ('none', None)}


def test_each_is_another_change_of_the_default():
    assert ABLATIONS['default'] == {}
    assert all(set(settings) <= set(DEFAULTS) for settings in ABLATIONS.values())
    full = [DEFAULTS | settings for settings in ABLATIONS.values()]
    assert all(a != b for i, a in enumerate(full) for b in full[:i])


def test_the_command_in_its_header_is_the_entry_of_that_name():
    lines = FILE.read_text(encoding='utf-8').splitlines()
    name = lines[0].split('work_dirs/ablations/')[1].split()[0]
    option = lines[1].split('--cfg-options ')[1]
    key, value = option.split('=')
    assert ABLATIONS[name] == {key.removeprefix('model.'): DictAction._parse_int_float_bool(value)}
    assert (FILE.parents[2] / lines[0].split()[3]).is_file()


@pytest.mark.parametrize('name', ABLATIONS)
def test_trains(name, tmp_path):
    torch.manual_seed(0)
    base = {key: value for key, value in crrcd(write_teacher(tmp_path / 'teacher.pth')).items()
            if key not in ('num_negatives', 'num_anchors', 'beta')}
    model = MODELS.build(base | ABLATIONS[name])
    model.init_weights()
    MessageHub.get_current_instance().update_info('epoch', 0)
    if 'rcd' in model.losses and model.losses.rcd.num_negatives:
        queue = model.losses.rcd.queue
        queue.push(torch.randn(queue.embedding.shape), torch.arange(len(queue.key)) % CLASSES)
    generator = torch.Generator().manual_seed(1)
    data = dict(inputs=torch.randint(256, (8, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator),
                labels=torch.arange(8) % CLASSES, index=torch.arange(8))
    parts = model.train().forward(**model.data_preprocessor(data, training=True), mode='loss')
    assert ('loss_rcd' in parts) == (ABLATIONS[name].get('beta') != 0)
    assert all(value.isfinite() for value in parts.values()) and parts.get('loss_rcd', 1) > 0
    sum(value for key, value in parts.items() if key.startswith('loss')).backward()
    assert all(p.grad.abs().max() > 0 for p in model.student.backbone.stages.parameters() if p.dim() == 4)
