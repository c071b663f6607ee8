"""Configs are programs in Python; what is data is read as data."""
import json
import sys
from pathlib import Path

import pytest
import utils
from mmengine.config import Config

from mmcrrcd.config import parse_config, read_config, read_values
from mmcrrcd.errors import InputError, first_line
from mmcrrcd.registry import MODELS

ROOT = Path(__file__).parents[1]
ATTACKS = {
    'a.yaml': '!!python/object/apply:os.system ["touch planted"]', 'a.yml': 'a: !!python/name:os.system',
    'a.json': '{"model": {"type": "os.system", "command": "touch planted"}}'}


@pytest.mark.parametrize('name', ATTACKS)
def test_configs_that_are_data_are_refused_by_every_tool(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(ATTACKS[name])
    Path('x.pth').touch()
    with pytest.raises(InputError, match=f'{name} is no config: configs are Python files'):
        read_config(name)
    for tool, *args in (('train.py', name), ('test.py', name, 'x.pth'), ('export_student.py', 'x.pth', '--config', name),
                        ('predict.py', name, name, 'x.pth')):
        with pytest.raises(SystemExit, match=f'^error: {name} is no config'):
            utils.tool(tool, *args)
    assert not Path('planted').exists()


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('crrcd/*cifar100.py'))[:3], ids=lambda path: path.stem)
def test_the_text_of_a_config_is_read_as_it_was(path):
    cfg = Config.fromfile(path)
    assert parse_config(cfg.pretty_text, path).to_dict() == Config.fromstring(cfg.pretty_text, '.py').to_dict()


def test_what_mmengine_writes_of_values_is_read():
    cfg = Config(dict(a=-1, b=1e-3, c=(1, 2), d={'x y': None}, e=[dict(type='SGD', f='é"\n')], g=float('inf'), h={}, i=True))
    assert parse_config(cfg.pretty_text, 'x').to_dict() == cfg.to_dict()


@pytest.mark.parametrize('text', [
    "import os", "open('planted', 'w')", "a = open('planted', 'w')", "a = dict(b=open('planted', 'w'))",
    "a = [x for x in ().__class__.__bases__]", "a = (lambda: 1)()", "a = f'{open}'", "a.b = 1", "a = b = 1", "a: int = 1",
    "def f(): pass", "a = dict(**{'x': 1})", "a = dict([1])", "a = 1 if 1 else 2", "a = {**{}}", "a = __import__('os')",
    "a = (", "a = " + "(" * 500 + ")" * 500, "a = 1\nif a: b = 2", "custom_imports = dict(imports=['os'])", "a = {[]: 1}",
    "a = float(open('planted', 'w'))", "a = float('inf')", "_base_ = 'planted.py'", "\0"])
def test_what_would_have_to_be_run_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match='^some.json .*is not read as data$'):
        parse_config(text, 'some.json')
    assert not Path('planted').exists()


@pytest.mark.parametrize('kind', [
    'os.system', 'builtins.eval', 'subprocess.Popen', 'torch.hub.load', 'torch.load', 'shutil.rmtree', 'torch.save', 'no.Net',
    'mmengine.Config.fromfile', 'mmengine.fileio.load', 'mmpretrain.get_model', 'mmcrrcd.torch_file.safe_load',
    'mmengine.utils.import_modules_from_strings', 'planted', 'mmengine.load', 'torch.hub', 7])
@pytest.mark.parametrize('depth', ['model = dict(type={!r})', 'model = dict(student=[dict(a=(dict(type={!r}), ))])'])
def test_a_type_that_is_in_no_registry_is_never_built(tmp_path, monkeypatch, kind, depth):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'planted.py').write_text('raise SystemExit("it ran")')         # mmengine imports a bare name
    with pytest.raises(InputError, match=f'some.json: type={kind!r} is in no registry'):
        parse_config(depth.format(kind), 'some.json')


@pytest.mark.parametrize('text, message', [
    ("model = dict(type='ResNetCIFAR', _scope_='planted')", "_scope_='planted' is none of"),
    ("default_scope = 'planted'", "default_scope='planted' is none of"),
    ("data = dict(type='CustomDataset', ann_file='list.pkl')", "ann_file='list.pkl' may hold code")])
def test_what_building_would_import_or_unpickle_is_refused(text, message):
    with pytest.raises(InputError, match=f'^some.json: {message}'):
        parse_config(text, 'some.json')


def test_registered_types_are_built_from_data():
    for kind in ('mmcrrcd.ResNetCIFAR', 'mmcrrcd.models.ResNetCIFAR'):
        cfg = parse_config(f'model = dict(type={kind!r}, depth=8)', 'x')
        assert type(MODELS.build(cfg.model)).__name__ == 'ResNetCIFAR'
    parse_config("optim = dict(type='mmengine.optim.OptimWrapper', optimizer=dict(type='torch.optim.SGD', lr=0.1))", 'x')
    for kind in ('torch.nn.BatchNorm2d', 'torchvision.models.ResNet', 'mmpretrain.ResNet', 'BN'):
        parse_config(f'a = dict(type={kind!r})', 'x')


def test_the_config_of_a_plug_in_is_read_but_not_for_building():
    """A student of known libraries may be built from it, see test_inference.py."""
    text = "custom_imports = dict(imports=['os'])\nmodel = dict(objective=dict(a=dict(type='somebodys.Loss')))"
    assert read_values(text, 'x').model.objective.a.type == 'somebodys.Loss'
    with pytest.raises(InputError, match='x has custom_imports'):
        parse_config(text, 'x')


def test_the_configs_in_the_results_of_this_package_are_data():
    files = sorted((ROOT / 'experiments' / 'records' / 'table1').glob('*.json'))
    assert files
    for file in files[::10]:
        assert parse_config(json.loads(file.read_text())['config'], file).model


@pytest.mark.parametrize('error, line', [
    (ValueError('one\ntwo'), 'one'), (KeyError('a name'), 'a name'), (AssertionError(), 'AssertionError'),
    (OSError('\n '), 'OSError'), (SyntaxError('bad', ('file', 1, 1, 'x')), 'bad'), ('no network', 'no network')])
def test_what_an_error_says_in_one_line(error, line):
    assert first_line(error) == line


def test_bases_of_mmpretrain_are_found_where_setuptools_has_no_pkg_resources(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pkg_resources', None)
    (tmp_path / 'project.py').write_text("_base_ = 'mmpretrain::_base_/default_runtime.py'")
    assert read_config(tmp_path / 'project.py').default_scope == 'mmpretrain'
    (tmp_path / 'project.py').write_text("_base_ = 'mmdet::_base_/default_runtime.py'")
    with pytest.raises(InputError, match='mmdet is not installed'):
        read_config(tmp_path / 'project.py')
