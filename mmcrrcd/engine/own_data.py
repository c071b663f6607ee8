"""What a config takes from the images that ``data_root`` names: where they are, and how many classes they have."""
import os
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmcrrcd.config import nested
from mmcrrcd.errors import InputError
from mmcrrcd.registry import DATASETS

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def name_of_data(data_root: str) -> str:
    """What trainings on these images are filed under: the folder's name, or that of the annotation file."""
    path = Path(os.path.abspath(data_root))
    return path.stem if path.suffix == '.txt' else path.name


def default_work_dir(cfg: Config, config: str | Path) -> Path:
    """Where a training of the file ``config`` goes, where that does not say it."""
    return Path(cfg.get('work_dir') or Path('work_dirs', *([name_of_data(cfg.data_root)] if cfg.get('data_root') else []),
                                            Path(config).stem))


def data_sets(cfg: Config) -> Iterator[dict]:
    """All parts of the three loaders' data sets."""
    for name in LOADERS:
        yield from nested((cfg.get(name) or {}).get('dataset'))


def move_data(cfg: Config, before: str) -> None:
    """Has the data sets that read from ``before`` read from ``cfg.data_root``."""
    for part in data_sets(cfg):
        if part.get('data_root') == before:
            part['data_root'] = cfg.data_root


def names_of_classes(dataset: dict) -> tuple[str, ...]:
    """Those of a data set's config, if possible without a look into any image.

    Raises:
        InputError: it has none.
    """
    kind = dataset['type']
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    if hasattr(kind, 'list_classes'):
        names = kind.list_classes(**{key: value for key, value in dataset.items() if key != 'type'})
    else:
        names = (getattr(DATASETS.build(dataset), 'metainfo', None) or {}).get('classes')
    if not names:
        raise InputError('num_classes=None is as many as the training images have, and these have no classes: say how many')
    return tuple(names)


def fit_to_data(cfg: Config) -> None:
    """Puts into ``cfg`` what its training images say, where it is left open.

    ``num_classes=None`` anywhere in the model becomes the number of their classes. ``{data}`` in ``model.teacher_checkpoint``
    becomes the name of ``data_root``.

    Raises:
        InputError, FileNotFoundError: there are no such images, or they have no classes; one line.
    """
    model = cfg.get('model')
    if not isinstance(model, dict):
        return
    checkpoint = model.get('teacher_checkpoint')
    if isinstance(checkpoint, str) and cfg.get('data_root'):
        model['teacher_checkpoint'] = checkpoint.replace('{data}', name_of_data(cfg.data_root))
    open_parts = [part for part in nested(model) if 'num_classes' in part and part['num_classes'] is None]
    if open_parts and cfg.get('train_dataloader'):
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
            number = len(names_of_classes(cfg.train_dataloader.dataset))
        for part in open_parts:
            part['num_classes'] = number
