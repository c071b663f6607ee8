"""Markdown of a table, and of the conditions under which its numbers were measured."""


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table: its head, and rows of as many cells.

    Example:
        >>> print(markdown_table(['', 'accuracy'], [['KD', 70.66]]))
        |  | accuracy |
        | --- | --- |
        | KD | 70.66 |
    """
    return '\n'.join(f'| {" | ".join(map(str, row))} |' for row in [head, ['---'] * len(head), *rows])


def machine(run: dict) -> str:
    """What :func:`mmcrrcd.environment.about_this_run` tells of hardware and versions, in one sentence."""
    versions = ', '.join(f'{package} {version}' for package, version in run['versions'].items())
    return f'{run["hardware"]}, {run["threads"]} thread(s); {versions}.'


def command(run: dict) -> str:
    """The command of a run, and the commit that it works at."""
    return f'`{run["command"]}`' + (f' at {run["commit"]}' if run.get('commit') else '')


def conditions(run: dict) -> str:
    """Where, with what and by which command something was measured, in one line."""
    return f'{machine(run)} {command(run)}'
