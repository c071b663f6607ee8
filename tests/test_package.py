"""The package itself: its versions, its requirements and the files that go along."""
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from PIL import Image

from mmcrrcd import zoo
from mmcrrcd.version import FLOORS, MMCV_FLOORS, __version__, check_requirements

ROOT = Path(__file__).parents[1]
INSTALLED = metadata.version


@pytest.fixture(scope='module')
def setup_py():
    pytest.importorskip('setuptools', reason='setup.py can only be read where setuptools is installed')
    return runpy.run_path(str(ROOT / 'setup.py'), run_name='read_only')


def fake_versions(monkeypatch, versions: dict[str, str | None]):
    def lookup(name):
        version = versions[name] if name in versions else INSTALLED(name)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, 'version', lookup)


def test_this_environment_is_new_enough():
    check_requirements()


@pytest.mark.parametrize('package', FLOORS)
def test_an_older_package_is_refused_in_one_line(monkeypatch, package):
    fake_versions(monkeypatch, {package: '0.0.1'})
    with pytest.raises(ImportError) as error:
        check_requirements()
    message = str(error.value)
    assert '\n' not in message
    assert '0.0.1' in message
    assert f"pip install --upgrade '{package}>={FLOORS[package]}'" in message


@pytest.mark.parametrize('package', FLOORS)
def test_a_missing_package_is_named_in_one_line(monkeypatch, package):
    fake_versions(monkeypatch, {package: None})
    with pytest.raises(ImportError) as error:
        check_requirements()
    message = str(error.value)
    assert '\n' not in message
    assert f'{package}>={FLOORS[package]}, which is not installed' in message


@pytest.mark.parametrize('version', ['2.10.0', '2.10.0a0+1234abc', '2.10.0+cu130', '2.15.0+cpu', '10.0'])
def test_local_and_vendor_builds_of_a_new_enough_version_pass(monkeypatch, version):
    fake_versions(monkeypatch, {'torch': version})
    check_requirements({'torch': '2.10'})


@pytest.mark.parametrize('version', ['2.9.1+cu130', '2.9.0a0+1234abc', '1.10'])
def test_local_and_vendor_builds_of_an_older_version_do_not(monkeypatch, version):
    fake_versions(monkeypatch, {'torch': version})
    with pytest.raises(ImportError, match='torch>=2.10'):
        check_requirements({'torch': '2.10'})


@pytest.mark.parametrize('mmcv, lite, message', [
    (None, '2.2.0', None),
    ('2.1.0', None, None),
    (None, None, 'mmcv-lite>=2.2.0, which is not installed'),
    (None, '2.1.0', 'mmcv-lite>=2.2.0, but 2.1.0 is installed'),
    ('1.7.2', None, 'mmcv>=2.0.0, but 1.7.2 is installed'),
])
def test_one_of_the_two_forms_of_mmcv_is_enough(monkeypatch, mmcv, lite, message):
    fake_versions(monkeypatch, {'mmcv': mmcv, 'mmcv-lite': lite})
    if message is None:
        check_requirements()
    else:
        with pytest.raises(ImportError, match=re.escape(message)):
            check_requirements()


def test_importing_the_package_checks_the_versions_and_is_cheap():
    code = ("import sys; from importlib import metadata; import mmcrrcd; assert mmcrrcd.__version__\n"
            "assert not {'torch', 'numpy', 'mmengine'} & set(sys.modules)\n"
            "del sys.modules['mmcrrcd']; metadata.version = lambda name: '0.0.1'; import mmcrrcd")
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                            env=os.environ | {'PYTHONPATH': str(ROOT)})
    assert re.fullmatch(r'ImportError: mmcrrcd .* needs torch>=.*, but 0\.0\.1 is installed: pip install .*',
                        result.stderr.splitlines()[-1])


def test_setup_requires_exactly_the_floors_that_are_checked(setup_py):
    wanted = dict(entry.split('>=') for entry in setup_py['requirements']() if '>=' in entry)
    mmcv = {package: floor for package, floor in MMCV_FLOORS.items() if package in wanted}
    assert len(mmcv) == 1  # never both forms
    assert wanted == FLOORS | mmcv
    assert setup_py['VERSION']['__version__'] == __version__


@pytest.mark.parametrize('folder, requirement', [
    ('mmcv-2.1.0.dist-info', 'mmcv>=2.0.0'),
    ('mmcv_lite-2.2.0.dist-info', 'mmcv-lite>=2.2.0'),
    ('unrelated-1.0.dist-info', 'mmcv-lite>=2.2.0'),
])
def test_full_mmcv_is_kept_where_it_is_installed(setup_py, tmp_path, folder, requirement):
    (tmp_path / folder).mkdir()
    assert setup_py['mmcv_requirement']([str(tmp_path)]) == requirement
    assert requirement in setup_py['requirements']([str(tmp_path)])


def test_the_other_files_state_the_same_version():
    assert f'\nversion: {__version__}\n' in (ROOT / 'CITATION.cff').read_text(encoding='utf-8')
    assert f'Version: v{__version__}\n' in (ROOT / 'model-index.yml').read_text(encoding='utf-8')


def install(source: Path, installed: Path, kind: str) -> None:
    """Puts a 'wheel', or an 'editable' one, into a folder, built from a copy, so that nothing is left in the source tree."""
    pytest.importorskip('setuptools', minversion='77', reason='a wheel can only be built where setuptools is installed')
    ignored = shutil.ignore_patterns('.*', 'data', 'work_dirs', 'results', 'build', '*.egg-info', '__pycache__')
    shutil.copytree(ROOT, source, ignore=ignored)
    wheels = source / 'wheels'
    subprocess.run([sys.executable, '-c', 'import setuptools.build_meta as build, sys; '
                    f'build.build_{kind}(sys.argv[1])', str(wheels)], cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(*wheels.glob('*.whl')) as wheel:
        wheel.extractall(installed)


@pytest.mark.slow
def test_an_editable_install_wins_over_the_folder_of_the_clone(tmp_path):
    """For a script beside the clone, whose folder is mmcrrcd, too."""
    install(tmp_path / 'mmcrrcd', tmp_path / 'installed', 'editable')
    # -S: without what is installed beside it
    find = "import importlib.util, site; site.addsitedir('installed'); print(importlib.util.find_spec('mmcrrcd').origin)"
    result = subprocess.run([sys.executable, '-S', '-c', find], cwd=tmp_path, capture_output=True, text=True,
                            env={key: value for key, value in os.environ.items() if key != 'PYTHONPATH'})
    assert result.stdout.strip() == str(tmp_path / 'mmcrrcd' / 'mmcrrcd' / '__init__.py'), result.stderr


@pytest.mark.slow
def test_wheel_has_configs_and_tools_that_run(tmp_path):
    """In mmcrrcd/.mim, where MIM looks."""
    installed = tmp_path / 'installed'
    install(tmp_path / 'source', installed, 'wheel')
    mim, ours = installed / 'mmcrrcd' / '.mim', {path.relative_to(ROOT) for path in (ROOT / 'configs').rglob('*.py')}
    assert {path.relative_to(mim) for path in (mim / 'configs').rglob('*.py')} == ours
    for file in yaml.safe_load((mim / 'model-index.yml').read_text())['Import']:
        assert (mim / file).is_file()
    assert (installed / 'mmcrrcd' / 'zoo' / f'{zoo.names()[0]}.safetensors').is_file()
    tools = {path.relative_to(ROOT / 'tools') for path in (ROOT / 'tools').rglob('*.*') if '__pycache__' not in path.parts}
    assert {path.relative_to(mim / 'tools') for path in (mim / 'tools').rglob('*.*')} == tools

    def run(*command) -> str:                            # as a user of the wheel, whose own folder has none of it
        result = subprocess.run([sys.executable, *map(str, command)], cwd=tmp_path, capture_output=True, text=True,
                                env=os.environ | dict(PYTHONPATH=str(installed)))
        assert result.returncode == 0, result.stderr
        return result.stdout

    config, few = mim / 'configs' / 'demo' / 'student_only.py', 'val_dataloader.dataset.num_images=80'
    run(mim / 'tools' / 'train.py', config, '--launcher', 'none', '--work-dir', 'run',       # as mim calls them
        '--cfg-options', few, 'train_dataloader.dataset.num_images=128', 'train_cfg.max_epochs=1')
    few = few.replace('val', 'test')
    assert 'accuracy/top1' in run(mim / 'tools' / 'test.py', config, 'run', '--launcher', 'none', '--cfg-options', few)
    Image.new('RGB', (8, 8)).save(tmp_path / 'image.png')
    assert '1 images classified' in run(mim / 'tools' / 'predict.py', 'image.png', '--zoo', zoo.names()[0])
    assert 'usage:' in run(mim / 'tools' / 'train.py', '--help')
    forms = dict(text="_base_ = 'mmcrrcd::custom/student_16px.py'", python='from mmengine.config import read_base\n\n'
                 'with read_base():\n    from mmcrrcd.configs.custom.student_16px import *\n')
    for name, text in forms.items():
        (tmp_path / f'{name}.py').write_text(text)
        assert 'CRRCD' in run('-c', f"from mmcrrcd.config import read_config; print(read_config('{name}.py').model.type)")
