"""A number that may change over the epochs."""
from bisect import bisect_right

from mmcrrcd.errors import InputError, is_number

Schedule = float | list[tuple[float, float]]


def value_at(schedule: Schedule, epoch: float) -> float:
    """The value of ``schedule`` at ``epoch``.

    A number stays what it is. A list of points (epoch, value) is joined by straight lines and constant outside. A warm-up
    over 20 epochs is ``[[0, 0], [20, 1]]``. Two points at the same epoch are a step, the later one counts.
    ``[[0, 1], [30, 1], [30, 0]]`` is 1 for 30 epochs and 0 from then on.
    """
    if isinstance(schedule, (int, float)):
        return float(schedule)
    epochs = [point[0] for point in schedule]
    after = bisect_right(epochs, epoch)
    if after == 0:
        return float(schedule[0][1])
    if after == len(schedule):
        return float(schedule[-1][1])
    (e0, v0), (e1, v1) = schedule[after - 1], schedule[after]
    return v0 + (v1 - v0) * (epoch - e0) / (e1 - e0)


def check_schedule(schedule: Schedule, name: str) -> None:
    """One clear line for a weight that is neither a number from 0 on nor a list of points in the order of their epochs."""
    if is_number(schedule):
        if schedule < 0:
            raise InputError(f'weight of {name}: expected a number from 0 on, got {schedule!r}')
        return
    points = schedule if isinstance(schedule, (list, tuple)) else []
    readable = all(isinstance(point, (list, tuple)) and len(point) == 2 and all(map(is_number, point)) for point in points)
    if not points or not readable or [p[0] for p in points] != sorted(p[0] for p in points):
        raise InputError(f'weight of {name}: expected a number or points [(epoch, value), ...] in order, got {schedule!r}')
    if min(value for _, value in points) < 0:
        raise InputError(f'weight of {name}: expected values from 0 on, got {schedule!r}')
