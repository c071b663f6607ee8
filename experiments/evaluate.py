"""What is asked of a network when it has been trained: numbers for its record."""
from pathlib import Path


def after_training(spec: dict, folder: Path, rows: list[dict]) -> tuple[dict, str]:
    """The results of the run in ``folder`` for its record, and the same in words."""
    tested = {row['epoch']: row['accuracy'] for row in rows if 'accuracy' in row}
    results = dict(last=tested[max(tested)], best=max(tested.values())) if tested else {}
    return results, f'{results["last"]:.2f} % at the last epoch' if tested else 'trained'
