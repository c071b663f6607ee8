"""The version of mmcrrcd and the oldest versions it works with: setup.py and the package both read them here."""
from importlib import metadata

__version__ = '0.1.0'

FLOORS = {
    'torch': '2.10',
    'torchvision': '0.25',
    'numpy': '2.0',
    'mmengine': '0.10.7',
    'mmpretrain': '1.2.0',
    'pillow': '10.1',                                    # fonts of any size without a file
    'filelock': '3.12',
    'matplotlib': '3.9',
    'rich': '13.0',
    'scikit-learn': '1.6',                               # neighbors of the samples themselves
    'scipy': '1.13',
}
MMCV_FLOORS = {'mmcv-lite': '2.2.0', 'mmcv': '2.0.0'}  # either will do: both install the module mmcv


def installed_version(package: str) -> str | None:
    """Return the version that the metadata of an installed package states, None where the package is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_requirements(floors: dict[str, str] = FLOORS) -> None:
    """Raise ImportError, in one line, for the first package that is missing or older than its floor.

    It reads installed metadata only, so it costs milliseconds and imports none of the packages.
    """
    from packaging.version import Version  # not at the top: setup.py runs this file where packaging may be missing

    full = installed_version('mmcv')
    mmcv = 'mmcv' if full else 'mmcv-lite'
    for package, floor in (floors | {mmcv: MMCV_FLOORS[mmcv]}).items():
        found = full if package == 'mmcv' else installed_version(package)
        remedy = f"pip install --upgrade '{package}>={floor}'"
        if not found:
            raise ImportError(f'mmcrrcd {__version__} needs {package}>={floor}, which is not installed: {remedy}')
        # base_version: '2.15.0+cu130' counts as 2.15.0, and a vendor's '2.10.0a0+1234abc' as the 2.10.0 it becomes.
        if Version(Version(found).base_version) < Version(floor):
            raise ImportError(f'mmcrrcd {__version__} needs {package}>={floor}, but {found} is installed: {remedy}')
