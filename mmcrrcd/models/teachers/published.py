"""The weights of CIFAR networks that others published, under the names of this package."""
import hashlib
import re
from pathlib import Path

from mmcrrcd.checkpoint import read_checkpoint, weights_in
from mmcrrcd.errors import InputError

# Their names and ours. Stages are counted from 1 there and from 0 here; a stage of VGG begins with its pooling here, not there.
RULES = dict(
    ResNetCIFAR={r'^conv1\.': 'backbone.stem.0.', r'^bn1\.': 'backbone.stem.1.', r'^layer(\d)\.': 'backbone.stages.{0}.',
                 r'^fc\.': 'head.fc.'},
    WRNCIFAR={r'^conv1\.': 'backbone.stem.', r'^bn1\.': 'backbone.last.0.', r'^block(\d)\.layer\.': 'backbone.stages.{0}.',
              r'\.convShortcut\.': '.shortcut.', r'^fc\.': 'head.fc.'},
    VGGCIFAR={r'^block0\.': 'backbone.stem.', r'^block(\d)\.(\d)\.': 'backbone.stages.{0}.{1}.', r'^classifier\.': 'head.fc.'},
    DenseNetCIFAR={r'^conv1\.': 'backbone.stem.', r'^bn1\.': 'backbone.last.0.',
                   r'^block(\d)\.layer\.': 'backbone.stages.{0}.layers.', r'^trans1\.': 'backbone.stages.1.transition.',
                   r'^trans2\.': 'backbone.stages.2.transition.', r'^fc\.': 'head.fc.'})


def renamed(key: str, rules: dict[str, str]) -> str:
    """Their name of a weight as ours."""
    for theirs, ours in rules.items():
        if found := re.search(theirs, key):
            numbers = [int(number) + shift for number, shift in zip(found.groups(), (-1, 1))]
            key = key[:found.start()] + ours.format(*numbers) + key[found.end():]
    return key


def converted(file: Path, backbone: str) -> dict:
    """A checkpoint of this package with the weights in ``file``, one of theirs.

    Raises:
        InputError: no network of theirs has such a backbone, or the file is not a checkpoint that can be loaded safely.
    """
    if backbone not in RULES:
        raise InputError(f'{backbone} has no counterpart among the networks published for CIFAR: {", ".join(RULES)} have')
    if not file.is_file():
        raise FileNotFoundError(f'there is no checkpoint {file}')
    theirs = read_checkpoint(file)
    weights = weights_in(theirs, file)
    first = {key.partition('.')[0] for key in weights}
    if len(first) == 1 and not first & weights.keys():   # a network within another module, Lightning's say
        weights = {key.partition('.')[2]: value for key, value in weights.items()}
    meta = dict(source=file.name, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    if isinstance(theirs.get('epoch'), int):
        meta['epoch'] = theirs['epoch']
    return dict(state_dict={renamed(str(key), RULES[backbone]): value for key, value in weights.items()}, meta=meta)
