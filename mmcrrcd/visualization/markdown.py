"""Markdown of a table."""


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table: its head, and rows of as many cells.

    Example:
        >>> print(markdown_table(['', 'accuracy'], [['KD', 70.66]]))
        |  | accuracy |
        | --- | --- |
        | KD | 70.66 |
    """
    return '\n'.join(f'| {" | ".join(map(str, row))} |' for row in [head, ['---'] * len(head), *rows])
