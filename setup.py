"""Build mmcrrcd: ``pip install -e .`` to work on it, ``pip wheel .`` to ship it; pyproject.toml sets the tools up."""
import os
import runpy
import shutil
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM = Path('mmcrrcd', '.mim')
MIM_CONTENT = ('configs', 'tools', 'model-index.yml')
ONNX = ['onnx', 'onnxruntime', 'onnxscript']
DOCS = ['myst-parser', 'pydata-sphinx-theme', 'sphinx>=8', 'sphinx-copybutton']
TEST = [*ONNX, 'pytest', 'pytest-xdist', 'setuptools>=77']
VERSION = runpy.run_path(str(ROOT / 'mmcrrcd' / 'version.py'))  # run as a file: importing the package would need torch


def mmcv_requirement(folders: list[str] | None = None) -> str:
    """Return full mmcv where one of ``folders`` (default: the target environment) holds it, else mmcv-lite.

    Both install a module called ``mmcv``, so the two must never meet. pip builds in an isolated environment whose
    ``sys.path`` lacks the target's site-packages, hence the explicit folders: ``sysconfig`` still names the target's,
    and a ``mmcv-*.dist-info`` in them means full mmcv (mmcv-lite's is ``mmcv_lite-*``). A builder with an interpreter
    of its own, such as ``python -m build``, sees no target and gets mmcv-lite.
    """
    if folders is None:
        folders = [sysconfig.get_path('purelib'), sysconfig.get_path('platlib'), *sys.path]
    installed = any(True for _ in metadata.distributions(name='mmcv', path=folders))
    package = 'mmcv' if installed else 'mmcv-lite'
    return f"{package}>={VERSION['MMCV_FLOORS'][package]}"


def requirements(folders: list[str] | None = None) -> list[str]:
    """Return install_requires: the floors of mmcrrcd/version.py, mmcv in the right form, and what compares them."""
    floors = [f'{package}>={floor}' for package, floor in VERSION['FLOORS'].items()]
    return [*floors, mmcv_requirement(folders), 'packaging']


class BuildWithMim(build_py):
    """Put configs, tools and model-index.yml into the package as ``mmcrrcd/.mim``, where OpenMMLab's MIM looks.

    A wheel gets copies without results, made in the build folder and so never in the source tree; an editable install
    gets links in the source tree, so that an edited config is the installed one.
    """

    def run(self):
        super().run()
        target = ROOT / MIM if self.editable_mode else Path(self.build_lib) / MIM
        shutil.rmtree(target, ignore_errors=True)  # left by an earlier build
        target.mkdir(parents=True)
        for name in MIM_CONTENT:
            if self.editable_mode:
                self.link(ROOT / name, target / name)
            else:
                self.copy(ROOT / name, target / name)

    def link(self, source: Path, target: Path):
        try:
            target.symlink_to(os.path.relpath(source, target.parent), target_is_directory=source.is_dir())
        except (OSError, NotImplementedError):  # a file system without links, or Windows without the right to make them
            self.copy(source, target)

    @staticmethod
    def copy(source: Path, target: Path):
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__', '*.py[co]', 'results'))
        else:
            shutil.copy2(source, target)


if __name__ == '__main__':  # the tests read the functions above without building anything
    readme = ROOT / 'README.md'
    setup(
        name='mmcrrcd',
        version=VERSION['__version__'],
        description='Cross-Resolution Relational Contrastive Distillation on mmengine and mmpretrain',
        long_description=readme.read_text(encoding='utf-8') if readme.is_file() else '',
        long_description_content_type='text/markdown',
        author='mmcrrcd contributors',
        license_expression='Apache-2.0',
        license_files=['LICENSE'],
        keywords='knowledge distillation, low resolution, image classification, OpenMMLab',
        packages=find_packages(include=['mmcrrcd', 'mmcrrcd.*']),
        package_dir={'': '.'},                           # has an editable install name a folder: a script beside the clone,
                                                         # whose folder is mmcrrcd, too, would import that one
        package_data={'mmcrrcd.zoo': ['*.json', '*.safetensors']},
        python_requires='>=3.10',
        install_requires=requirements(),
        extras_require={'onnx': ONNX, 'test': TEST, 'docs': DOCS, 'dev': [*TEST, 'ruff']},
        cmdclass={'build_py': BuildWithMim},
        zip_safe=False,
    )
