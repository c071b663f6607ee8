from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / 'shared'
GOLDEN = Path(__file__).parent / 'data' / 'golden'       # what published code returns: see the README there


def shared_file(*parts: str) -> Path:
    """A file of the reference material beside the checkout; the test is skipped where it is missing."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f'needs ../shared/{"/".join(parts)}')
    return path
