"""Where a config's teacher comes from: what trains it, and whether it is trained."""
from pathlib import Path

from mmengine.config import Config

from mmcrrcd.checkpoint import UnfinishedTraining, find_checkpoint, read_checkpoint, read_network
from mmcrrcd.config import own_root
from mmcrrcd.datasets.transforms.resolution_pair import sides
from mmcrrcd.errors import InputError


def teacher_config(cfg: Config) -> Path | None:
    """The config that trains the teacher of ``cfg``; its path is relative to a folder above the student's config, or this
    package's own.
    """
    if 'teacher_config' not in cfg:
        return None
    for folder in (Path(), *Path(cfg.filename).resolve().parents, own_root()):
        if (folder / cfg.teacher_config).is_file():
            return folder / cfg.teacher_config
    raise FileNotFoundError(f'teacher_config = {cfg.teacher_config!r} of {cfg.filename} is missing')


def is_trained(path: str | Path) -> bool:
    """Is there a finished training, or a checkpoint?"""
    try:
        read_network(path)
    except (FileNotFoundError, UnfinishedTraining):
        return False
    return True


def refuse_small(teacher: str | Path, side: int) -> None:
    """Raises InputError where a teacher's checkpoint says that its training saw fewer than ``side`` pixels.

    A student-only baseline may have been trained there with its ``resolution`` changed, under the name that the teacher has.
    """
    settings = (read_checkpoint(find_checkpoint(teacher)).get('meta') or {}).get('settings') or {}
    pixels = ((settings.get('model') or {}).get('data_preprocessor') or {}).get('resolution')
    if pixels is not None and min(sides(pixels)) < side:
        seen = '×'.join(map(str, sides(pixels)))
        raise InputError(f'the training in {teacher} is of images of {seen} px, as its checkpoint says, not '
                         'of a teacher: move it away')
