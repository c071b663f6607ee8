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


def conditions(run: dict) -> str:
    """One sentence of what :func:`mmcrrcd.environment.about_this_run` tells: where, with what, by which command."""
    versions = ', '.join(f'{package} {version}' for package, version in run['versions'].items())
    commit = f' at {run["commit"]}' if run.get('commit') else ''
    return f'{run["hardware"]}, {run["threads"]} thread(s); {versions}. `{run["command"]}`{commit}'
