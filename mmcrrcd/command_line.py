"""What the tools share: ``--cfg-options`` and ``--launcher``, files that they will write, and an end with one line."""
import argparse
import logging
import os
import sys
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config, DictAction

from mmcrrcd.config import read_config
from mmcrrcd.engine.launch import part_processes
from mmcrrcd.engine.own_data import fit_to_data, move_data
from mmcrrcd.engine.settings import TOP
from mmcrrcd.engine.translate import of_worker, translate
from mmcrrcd.errors import WRONG, InputError, explained, first_line, nearest, printable
from mmcrrcd.files import named_errors
from mmcrrcd.interrupt import CODE, LINE

LONGEST = 600                                            # letters of a line that somebody reads
PICTURES = ('.png', '.pdf', '.svg', '.jpg')


class Options(DictAction):
    """``--cfg-options KEY=VALUE ...``, with one line for what cannot be read so."""

    def __call__(self, parser, namespace, values, option_string=None):
        for value in values:
            key, equals, text = value.partition('=')
            if not (key and equals):
                sys.exit(f'error: {option_string} takes KEY=VALUE, got {value!r}')
            try:
                self._parse_iterable(text)
            except (AssertionError, IndexError, ValueError) as error:
                sys.exit(f'error: {option_string} {value}: {first_line(error) if str(error) else "the brackets do not close"}')
        super().__call__(parser, namespace, values, option_string)


def add_options(parser: argparse.ArgumentParser, example: str | None = None, launcher: bool = False) -> None:
    """``--cfg-options``, whose help shows the ``example``; for tools of which several processes may run ``--launcher``, too."""
    parser.add_argument('--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE',
                        help='override settings' + (f', e.g. {example}' if example else ''))
    if launcher:
        parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
        parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def need_sections(cfg: Config, *names: str) -> None:
    """Raises InputError where ``cfg`` lacks one of the parts that a tool cannot do without."""
    for name in names:
        if not isinstance(cfg.get(name), dict):
            near = nearest(name, (key for key in cfg if key not in TOP), edits=2)
            raise InputError(f'{cfg.filename} has no {name}, or it is no dict{near}')


def merge_options(cfg: Config, options: dict | None, flag: str = '--cfg-options') -> None:
    """Merges what ``--cfg-options``, or another ``flag``, say into ``cfg``; then what its images say, see :func:`fit_to_data`.

    A ``data_root`` goes to all data sets that have read from that of ``cfg``.

    Raises:
        InputError: an option can have no effect. Its first name may be no part of a config. It may be a place that a list does
            not have. It may be the ``data_preprocessor`` beside a model that has one of its own. What remains is seen by
            :func:`check_settings`.
    """
    for option in options or {}:
        first, *rest = option.split('.')
        if first not in TOP:
            why = f'{first!r} only helps to write the config, nothing reads it' if first in cfg else f'there is no {first!r}'
            raise InputError(f'{flag} {option}: {why}{nearest(first, TOP)}')
        if first == 'data_preprocessor' and 'data_preprocessor' in (cfg.get('model') or {}):
            raise InputError(f'{flag} {option}: the model has a data_preprocessor of its own; did you mean '
                             f'\'{".".join(["model", *option.split(".")])}\'?')
        node = cfg.get(first)
        for i, name in enumerate(rest):
            so_far = '.'.join([first, *rest[:i]])
            if isinstance(node, (list, tuple)):
                if not name.isdecimal() or int(name) >= len(node):
                    raise InputError(f'{flag} {option}: {so_far} is a list of {len(node)} without place {name!r}')
                node = node[int(name)]
            elif isinstance(node, dict):
                node = node.get(name)
            elif node is not None:
                raise InputError(f'{flag} {option}: {so_far} is {node!r}, which has no {name!r}')
    before = cfg.get('data_root')
    if 'data_root' in (options or {}) and before is None:
        raise InputError(f'{flag} data_root: {cfg.filename} has no data_root; name that of its data sets, as '
                         'train_dataloader.dataset.data_root')
    with explained(f'{flag} {" ".join(options or ())}', WRONG, first_line):
        cfg.merge_from_dict(options or {})
    if not isinstance(cfg.get('data_root'), (str, Path, type(None))):
        raise InputError(f'{flag} data_root is a folder, got {cfg.data_root!r}')
    if before is not None and cfg.data_root != before:
        move_data(cfg, before)
    fit_to_data(cfg)


def read_with_options(path: str | Path, options: dict | None, *sections: str) -> Config:
    """The config at ``path``, which needs these ``sections``, with what ``--cfg-options`` say. Raises InputError as the others
    here.
    """
    cfg = read_config(path)
    need_sections(cfg, *sections)
    merge_options(cfg, options)
    return cfg


def check_output(file: str | Path) -> None:
    """Makes the folder for a file that a tool will write when its work is done.

    Raises:
        InputError: it cannot be written there.
    """
    path = Path(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f'{file} cannot be written: {path.parent} is no folder') from None
    except OSError as error:
        raise InputError(f'{file} cannot be written: {error.strerror}') from error
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f'{file} cannot be written: {"it is a folder" if path.is_dir() else "no permission"}')


def picture_and_numbers(file: str) -> tuple[Path, Path]:
    """A picture's file and the JSON file beside it, both checked as above. Raises InputError where it is no picture, too."""
    path = Path(file)
    if path.suffix.lower() not in PICTURES:
        raise InputError(f'{file} ends in none of {", ".join(PICTURES)}')
    both = path, path.with_suffix('.json')
    for each in both:
        check_output(each)
    return both


def silence() -> None:
    """Nothing more is written to stdout, where it cannot be: at its end Python would try again, and say so."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):                        # no file of the system, as in tests
        pass


def end(line: str, code: int = 1) -> None:
    """Ends the program with one line, also where several processes end with it; of a very long one with its two ends."""
    line = line if len(line) < LONGEST else f'{line[:LONGEST - 120]} ... {line[-100:]}'
    try:
        sys.stdout.flush()
    except OSError:
        silence()
    if file := os.environ.get('MMCRRCD_ERROR_FILE'):     # of tools/dist_train.sh, which says it after all that torchrun says
        try:
            with open(file, 'x') as first:               # of several processes whoever comes first
                first.write(line + '\n')
        except OSError:
            pass
        sys.exit(code)
    if code == 1:
        sys.exit(line)
    print(line, file=sys.stderr)
    sys.exit(code)


def was_interrupted(error: BaseException | None) -> bool:
    """Was it Ctrl-C that ended in this error? mmengine, where it formats a config, catches that with all else."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or was_interrupted(error.__context__))


@contextmanager
def one_line_errors():
    """Ends the program with the one line of an error that the input caused; bugs keep their traceback.

    Where all went well the processes part in order, for which nothing outside may hold a model any more.
    """
    logging.raiseExceptions = False                      # a log on a full disk says nothing; the checkpoint will say it
    try:
        yield
        with named_errors('the output'):
            sys.stdout.flush()                           # a full disk behind a pipe is noticed here, not at the very end
        part_processes()
    except (InputError, FileNotFoundError, FloatingPointError) as error:
        end(f'error: {printable(of_worker(error) or error)}')
    except KeyboardInterrupt:
        end(LINE, CODE)
    except BrokenPipeError:                              # whoever read the output has gone, as ``head`` does
        silence()
        sys.exit(1)
    except Exception as error:
        if was_interrupted(error):
            end(LINE, CODE)
        if (line := translate(error)) is None:           # a bug
            raise
        end(f'error: {printable(line)}')
