"""Files that appear whole or not at all, lists of files, and texts."""
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import BinaryIO

from mmcrrcd.errors import InputError, printable


def sync_folder(folder: str | Path) -> None:
    """Makes the disk keep the names in ``folder``: a file renamed there is there after a power failure, too."""
    if sys.platform == 'win32':                          # has no such thing
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:                                      # some network file systems refuse it for folders
        pass
    finally:
        os.close(handle)


@contextmanager
def named_errors(path: str | Path) -> Iterator[None]:
    """Errors of the disk in the block say ``path`` where they say no name: that of a full one does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """An open file that takes the name ``path`` when the block ends well, and leaves nothing when it does not.

    Until then it is called ``<path>.<machine>.<process>.part``: of several processes that write the same file the last one
    wins, and none renames what another has half written. A file or link of that name is removed first and never followed; what
    killed processes have left is removed, too. File and folder are on the disk (fsync) when the block is left.
    """
    path = Path(path)
    part = path.with_name(f'{path.name}.{platform.node()}.{os.getpid()}.part')
    if path.exists() and not path.is_file():             # a device, such as /dev/full, would be replaced
        raise InputError(f'{path} cannot be written: it is no regular file')
    clear_dead(path.parent, escape(path.name))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, 'O_NOFOLLOW', 0) | getattr(os, 'O_BINARY', 0)
    with named_errors(path):
        part.unlink(missing_ok=True)
        handle = os.open(part, flags, 0o666)
        try:
            with open(handle, 'wb') as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Writes a file that is there whole or not at all, see :func:`whole_file`; a text in UTF-8. Into pipes it is written."""
    content = content.encode(errors='surrogateescape') if isinstance(content, str) else content
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        with named_errors(path):
            Path(path).write_bytes(content)
        return
    with whole_file(path) as file:
        file.write(content)


def write_json(path: str | Path, value) -> None:
    """:func:`write_whole` of ``value`` as JSON, in a folder that is made where it is missing."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(value, indent=1) + '\n')


def inside(folder: str | Path, name: str, source: str | Path) -> Path:
    """``folder/name``. Raises InputError where that leads out of the folder; ``source`` is the list that says the name."""
    if os.path.isabs(name) or '..' in Path(name).parts or Path(name).drive:
        raise InputError(f'{source} names {printable(name)[:80]!r}, which is not in {folder}: names are relative to it')
    return Path(folder) / name


def check_there(files: Sequence[Path], what: str) -> None:
    """Raises FileNotFoundError for the first of ``files`` that is missing, and says how many are; ``what`` names them."""
    if missing := [file for file in files if not file.is_file()]:
        raise FileNotFoundError(f'{missing[0]} of {what} is missing ({len(missing):,} of {len(files):,} images are)')


def read_lines(path: Path, downloaded_to: Path | None = None) -> list[str]:
    """The lines of a text file in UTF-8, with or without the mark that Windows puts in front.

    Raises:
        FileNotFoundError: there is none; it comes again where the folder that it was ``downloaded_to`` is deleted.
        InputError: it is no text.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing; delete {downloaded_to} to download it again' if downloaded_to else
                                f'there is no file {path}')
    try:
        return path.read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f'{path} is not a text file') from error


def clear_parts(folder: str | Path, suffix: str) -> list[Path]:
    """Removes what others left of files ending in ``suffix``, from a folder in which no other writes such; their names."""
    parts = sorted({*Path(folder).glob(f'*{suffix}.part'), *Path(folder).glob(f'*{suffix}.*.part')})
    for part in parts:
        part.unlink(missing_ok=True)
    return parts


def clear_dead(folder: str | Path, pattern: str) -> None:
    """Removes what killed processes of this machine left of files by names of a ``pattern``; of running ones it stays."""
    for left in Path(folder).glob(f'{pattern}.{escape(platform.node())}.*.part'):
        process = left.name.split('.')[-2]
        if not (process.isdecimal() and is_running(int(process))):
            left.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Is there a process of this number on this machine?"""
    if sys.platform == 'win32':                          # where the question would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:                                      # somebody else's
        return True
    return True
