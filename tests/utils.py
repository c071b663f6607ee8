import runpy
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / 'tools'
SHARED = Path(__file__).parents[2] / 'shared'
GOLDEN = Path(__file__).parent / 'data' / 'golden'       # what published code returns: see the README there


def shared_file(*parts: str) -> Path:
    """A file of the reference material beside the checkout; the test is skipped where it is missing."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f'needs ../shared/{"/".join(parts)}')
    return path


def tool(name: str, *args) -> None:
    """Runs a tool of tools/ with these arguments, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)                     # a script finds its neighbors
        runpy.run_path(str(TOOLS / name))['main'](list(map(str, args)))
