"""Do labels mean the same classes in the training, in its tests, and to the network?"""
import logging

import numpy as np
from mmengine.logging import print_log
from torch import nn

from mmcrrcd.datasets.images import NO_LABEL
from mmcrrcd.datasets.mended import parts_of
from mmcrrcd.errors import InputError, printable


def number_of_classes(model: nn.Module) -> int | None:
    """That of the student's head, None where it has none."""
    return getattr(getattr(getattr(model, 'student', model), 'head', None), 'num_classes', None)


def labels_of(dataset) -> np.ndarray | None:
    """The labels (N,) of a data set, wrappers aside; None where they are not known, or are no single numbers."""
    if not hasattr(dataset, 'get_gt_labels'):
        return None
    try:
        labels = np.asarray(dataset.get_gt_labels())
    except (AttributeError, KeyError, TypeError, ValueError):            # several labels for an image, or none
        return None
    labels = labels[labels != NO_LABEL] if labels.ndim == 1 and labels.dtype.kind in 'iu' else labels[:0]
    return labels if labels.size else None


def place_of(dataset) -> str:
    """What an error calls a data set: its file or folder where it has one."""
    return printable(getattr(dataset, 'ann_file', '') or getattr(dataset, 'data_root', '') or type(dataset).__name__)


def check_labels(model: nn.Module, dataset, name: str) -> None:
    """Raises InputError where a label is none of the classes' numbers."""
    classes = number_of_classes(model)
    for part in parts_of(dataset):
        labels = labels_of(part)
        if labels is not None and classes is not None and (labels.min() < 0 or labels.max() >= classes):
            raise InputError(f'{name}: labels in {place_of(part)} go from {labels.min()} to {labels.max()}, and the network '
                             f'has {classes} classes, 0 to {classes - 1}')


def classes_of(dataset) -> tuple[str, ...] | None:
    """The names of the classes, where the data tell them."""
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    return None if classes is None else tuple(map(str, classes))


def check_classes(trained: tuple[str, ...] | None, tested: tuple[str, ...] | None, name: str, where: str = '') -> None:
    """Compares the classes' names, in the order of their labels, of a test with those of the training; ``None`` are not known.

    Numbers in place of names, and names of another language, say nothing: where no name is in both only the number counts.

    Raises:
        InputError: a class is missing, is more, or has another label.
    """
    if trained is None or tested is None or trained == tested:
        return
    def some(names) -> str:
        return printable(', '.join(list(names)[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else ''))

    missing, extra = ([each for each in a if each not in b] for a, b in ((trained, tested), (tested, trained)))
    place = f' ({where})' if where else ''
    if len(trained) != len(tested) or missing and len(missing) < len(trained):
        differ = [f'{some(names)} {"is" if len(names) == 1 else "are"} {what}'
                  for names, what in ((missing, 'missing'), (extra, 'not in the training')) if names]
        raise InputError(f'{name}{place} has {len(tested)} classes and the training {len(trained)}: {"; ".join(differ)}, so '
                         'labels would mean other classes; both need a folder, or a name, for each class')
    if not missing:
        first = next(i for i, pair in enumerate(zip(trained, tested)) if pair[0] != pair[1])
        raise InputError(f'{name}{place} has the classes of the training in another order: label {first} is '
                         f'{printable(tested[first])} there and {printable(trained[first])} in the training')
    print_log(f'{name}{place} calls its classes {some(tested)}, the training calls them {some(trained)}: they are taken for '
              'the same, in this order', 'current', logging.WARNING)


def warn_of_absent_classes(trained, tested, name: str) -> None:
    """Says which classes a test never shows, though the training does: its labels may count from another number."""
    of_training, of_test = labels_of(trained), labels_of(tested)
    if of_training is None or of_test is None:
        return
    if absent := sorted(set(of_training.tolist()) - set(of_test.tolist())):
        print_log(f'{name} ({place_of(tested)}) has no image of {len(absent)} classes of the training, of label '
                  f'{", ".join(map(str, absent[:5]))}: is that meant?', 'current', logging.WARNING)
