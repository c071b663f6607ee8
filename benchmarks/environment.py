"""What a number needs beside it, as a sentence."""
from mmcrrcd.environment import about_this_run

__all__ = ['about_this_run', 'conditions']


def conditions(run: dict) -> str:
    """One sentence: where, with what, by which command."""
    versions = ', '.join(f'{package} {version}' for package, version in run['versions'].items())
    return f'{run["hardware"]}, {run["threads"]} thread(s); {versions}. `{run["command"]}`'
