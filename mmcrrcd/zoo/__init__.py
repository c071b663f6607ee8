"""The model zoo: small trained students that come with the package.

>>> mmcrrcd.load_student('resnet20_cifar100_8px').predict('camera/')

A student is two files: its weights, ``NAME.safetensors``, and ``NAME.json``, which holds what else has to be known. Such a
pair is read from any folder in the same way. ``tools/export_student.py WORK_DIR --zoo FILE`` writes one.
"""
import hashlib
import json
from pathlib import Path

from mmcrrcd.errors import InputError, nearest

FOLDER = Path(__file__).parent
KEYS = dict(accuracy=dict, classes=list, command=str, config=dict, data=str, images=int, macs=int, parameters=int, sha256=str)


def names() -> list[str]:
    """The students that there are."""
    return sorted(path.stem for path in FOLDER.glob('*.safetensors'))


def find(name: str) -> Path:
    """The weights of a student of the zoo. Raises InputError where none is called ``name``, with the nearest that is."""
    if name not in names():
        raise InputError(f'the model zoo has no student {name!r}, only {", ".join(names())}{nearest(name, names())}')
    return FOLDER / f'{name}.safetensors'


def read_metafile(weights: str | Path) -> dict:
    """What is known of the student whose weights are in this file, from the JSON file beside it.

    - ``accuracy``: in percent, on ``images`` test images of ``data``, by the side in pixels that the student sees.
    - ``teacher``: the same of its teacher, by the side of the teacher's images; left out where that was not at hand.
    - ``command``: by which it was trained.
    - ``classes``: their names. ``parameters``, ``macs``: of the network, for one image of the smallest resolution.
    - ``config``: settings of the student, and of the data that it was tested on.
    - ``sha256``: of the weights.

    Raises:
        InputError: it is missing or none, or the weights are others than those that it describes; one line.
    """
    weights = Path(weights)
    metafile = weights.with_suffix('.json')
    try:
        known = json.loads(metafile.read_text(encoding='utf-8'))
        missing = next((key for key, kind in KEYS.items() if not isinstance(known.get(key), kind)), None)
    except FileNotFoundError as error:
        raise InputError(f'{weights} tells nothing but weights: {metafile} is missing, or name a config') from error
    except (AttributeError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f'{metafile} is damaged, or no metafile of a student') from error
    if missing:
        raise InputError(f'{metafile} is no metafile of a student: its {missing} is no {KEYS[missing].__name__}')
    if not weights.is_file():
        raise FileNotFoundError(f'no checkpoint at {weights}')
    if hashlib.sha256(weights.read_bytes()).hexdigest() != known['sha256']:
        raise InputError(f'{weights} is damaged: it is not the file whose checksum stands in {metafile}')
    return known
