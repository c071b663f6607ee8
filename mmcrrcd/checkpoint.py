"""Networks from checkpoint files of any origin, loaded so that they cannot run code."""
import logging
import os
import re
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmcrrcd.errors import InputError, printable
from mmcrrcd.torch_file import Nothing, is_whole, safe_load


class UnfinishedTraining(InputError):
    """The last checkpoint of a work directory is not the end of its training."""


def read_checkpoint(path: str | Path, device: str = 'cpu') -> dict:
    """What a checkpoint holds; the only way by which one enters this package.

    mmengine would run ``meta['config']`` as Python, and removes the files that a checkpoint calls its best: neither is handed
    on. The log's history is left out, which no training needs.

    Raises:
        InputError: it is none, is damaged, or has more in it than tensors and plain values.
    """
    checkpoint = safe_load(path, device)
    if not isinstance(checkpoint, dict):
        raise InputError(f'{path} is not a checkpoint: it holds a {type(checkpoint).__name__}, not a dict of weights')
    if not isinstance(weights := checkpoint.get('state_dict', {}), dict):
        raise InputError(f'{path} is not a checkpoint: its state_dict is a {type(weights).__name__}')
    if isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    hub = checkpoint.get('message_hub')
    if isinstance(hub, dict) and isinstance(hub.get('runtime_info'), dict):
        hub['log_scalars'] = {}
        hub['runtime_info'] = {key: value for key, value in hub['runtime_info'].items() if not isinstance(value, Nothing)}
        known = hub.get('resumed_keys')
        known = known if isinstance(known, dict) else {}
        hub['resumed_keys'] = {key: True for key, value in known.items() if value and key in hub['runtime_info']}
    elif hub is not None:                                # of another form than today's: of no use
        del checkpoint['message_hub']
    return checkpoint


def step_of(path: Path) -> int | None:
    """The epoch or iteration in the name of a checkpoint that can be resumed from; None for others, such as the best."""
    found = re.search(r'(\d+)\.pth$', path.name)
    return int(found[1]) if found and not path.name.startswith('best_') else None


def find_checkpoint(path: str | Path) -> Path:
    """``path`` itself if it is a file, the last whole checkpoint in it if it is a work directory.

    That is the one that ``last_checkpoint`` names, by its name in this folder first, as the folder may have been renamed or
    copied. That file may be missing, be empty, name nothing whole, or be older than a checkpoint. Then the one with the largest
    number is taken.

    Raises:
        FileNotFoundError: there is none.
        InputError: there are some, but none is whole.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f'no checkpoint at {path}')
    named = None
    if (pointer := path / 'last_checkpoint').is_file():
        text = pointer.read_text(errors='replace').strip()
        last = Path(text) if text and text.isprintable() else None
        named = next((each for each in (path / last.name, last) if os.path.isfile(each)), None) if last else None

    def is_newer(each: Path) -> bool:
        further = step_of(named) is not None and step_of(each) > step_of(named)
        return further and each.stat().st_mtime_ns >= named.stat().st_mtime_ns

    others = [each for each in path.glob('*.pth') if step_of(each) is not None and each.is_file() and each != named]
    others.sort(key=step_of, reverse=True)
    candidates = [*filter(is_newer, others), named, *others] if named else others
    for each in dict.fromkeys(candidates):
        if is_whole(each):
            return each
        print_log(f'{printable(each)} is damaged, so an earlier checkpoint is taken', 'current', logging.WARNING)
    if candidates:
        raise InputError(f'none of the {len(set(candidates))} checkpoints in {path} is whole: {candidates[0].name} is damaged')
    raise FileNotFoundError(f'no checkpoint at {path}')


def check_finite(weights: dict[str, Tensor], untrained: dict[str, Tensor], path: str | Path) -> None:
    """Raises InputError where a weight or buffer of the file ``path`` is not finite, and that of an untrained network is."""
    if name := first_not_finite(weights, {key for key, value in untrained.items() if not value.isfinite().all()}):
        raise InputError(f'{path} is of no use: {name} in it is not finite')


def first_not_finite(weights: dict[str, Tensor], meant: set[str] = frozenset()) -> str | None:
    """The name of the first tensor with NaN or infinity in it, of those not in ``meant``; None where there is none.

    One wait for the device.
    """
    names = [key for key, value in weights.items() if key not in meant and value.numel()
             and (value.is_floating_point() or value.is_complex())]
    finite = torch.stack([weights[key].isfinite().all().cpu() for key in names]).tolist() if names else []
    return None if all(finite) else names[finite.index(False)]


WRAPPINGS = ('state_dict', 'model', 'net', 'network', 'model_state_dict', 'model_state', 'weights', 'student', 'module',
             'state_dict_ema', 'model_ema', 'ema_state_dict', 'ema', 'ema_model')        # averaged ones in need
PREFIXES = ('module.', '_orig_mod.')                     # of parallel, averaged and compiled models
COUNTERS = {'steps', 'n_averaged'}                       # of averaged models


def weights_in(checkpoint: dict, path: str | Path) -> dict[str, Tensor]:
    """The weights of one network in what a checkpoint of any origin holds, under the names that the network itself gives them.

    They may lie under ``model``, ``net``, ``state_dict`` and the like, one in the other, and their names may begin with
    ``module.`` or ``_orig_mod.``.

    Raises:
        InputError: there are none where they are looked for; the line says what there is.
    """
    def find(found) -> dict | None:
        if not isinstance(found, dict):
            return None
        inner = next((each for each in map(find, (found.get(key) for key in WRAPPINGS)) if each), None)
        return inner or {str(key): value for key, value in found.items() if isinstance(value, Tensor)}

    weights = find(checkpoint)
    if not weights:
        held = printable(', '.join(map(str, list(checkpoint)[:8]))) or 'nothing'
        raise InputError(f'{path} has no weights of a network: it holds {held}, and they are looked for at its top and under '
                         f'{", ".join(WRAPPINGS)}')
    for _ in range(len(PREFIXES) + 1):                   # one may be in the other
        for prefix in PREFIXES:
            averaged = COUNTERS & weights.keys() and any(key.startswith(prefix) for key in weights)
            weights = {key.removeprefix(prefix): value for key, value in weights.items()
                       if not (averaged and key in COUNTERS)}
    return weights


def read_network(path: str | Path) -> dict[str, Tensor]:
    """The weights of one classifier in a checkpoint: mmpretrain's, this package's (its student), or those of others, see
    :func:`weights_in`.

    Raises:
        InputError: not a checkpoint, or of a training that has not finished.
    """
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    if Path(path).is_dir() and (left := unfinished(checkpoint)):
        raise UnfinishedTraining(f'{path}: training stopped after {left}; finish it with --resume, or name {file}')
    return network_in(checkpoint, file)


def network_in(checkpoint: dict, path: str | Path) -> dict[str, Tensor]:
    """The weights of one classifier in what a checkpoint holds, as :func:`read_network` gives them."""
    weights = weights_in(checkpoint, path)
    students = {key.removeprefix('student.'): value for key, value in weights.items() if key.startswith('student.')}
    return students or {key: value for key, value in weights.items() if not key.startswith('data_preprocessor.')}


def fitted(weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """``weights`` under the names in ``wanted``, before which a file may have a prefix more, ``model.`` of Lightning, say, with
    others' weights beside it, or one less. With the counters of batch norms that older files lack, and eval mode does not need.
    """
    counters = {key: value for key, value in wanted.items() if key.endswith('.num_batches_tracked')}
    names = wanted.keys() - counters.keys()
    if names and not weights.keys() & names:
        first = next(key for key in wanted if key in names)
        found = sorted(({key: sum(key + name in weights for name in names)
                         for key in (key.removesuffix(first) for key in weights if key.endswith(f'.{first}'))}).items(),
                       key=lambda each: each[1], reverse=True)
        less = {name.partition('.')[0] for name in wanted}
        if found and (len(found) == 1 or found[0][1] > found[1][1]):     # of several equals none is meant
            weights = {key.removeprefix(found[0][0]): value for key, value in weights.items() if key.startswith(found[0][0])}
        elif len(less) == 1:
            weights = {f'{min(less)}.{key}': value for key, value in weights.items()}
    return weights if counters.keys() & weights.keys() else counters | weights


def names_in_student(weights: dict[str, Tensor], student: dict[str, Tensor], prefix: str = '') -> dict[str, str]:
    """New names ``student.*`` for the weights of a checkpoint that has a student and nothing else; {} for one of a
    distiller.
    """
    if any(key.startswith(f'{prefix}student.') for key in weights):
        return {}
    return {prefix + key: f'{prefix}student.{key}' for key in student if prefix + key in weights}


def class_names_in(checkpoint: dict, path: str | Path) -> tuple[str, ...] | None:
    """The names of the classes in a checkpoint's ``dataset_meta``; None where it tells none. Raises InputError for other things
    in their place.
    """
    meta = checkpoint.get('meta')
    data = meta.get('dataset_meta') if isinstance(meta, dict) else None
    names = data.get('classes') if isinstance(data, dict) else None
    if names is None or isinstance(names, (list, tuple)) and all(isinstance(name, (str, int)) for name in names):
        return tuple(map(str, names)) if names else None
    raise InputError(f'{path}: dataset_meta.classes is a list of names, got {printable(names)[:60]}')


def image_size_in(path: str | Path) -> tuple[int, int] | None:
    """Height and width of a training's images, as :class:`CheckInputHook` leaves them in its checkpoint; None elsewhere."""
    hub = read_checkpoint(find_checkpoint(path)).get('message_hub')
    size = hub.get('runtime_info', {}).get('image_size') if isinstance(hub, dict) else None
    return tuple(size) if isinstance(size, list) and len(size) == 2 else None


def unfinished(checkpoint: dict) -> str | None:
    """How far the training of a checkpoint had come where it was not at its end, in words; None where it was, or is unknown.

    The end of a training that ``EarlyStoppingHook`` stopped is where it stopped.
    """
    meta, hub = (checkpoint.get(key) if isinstance(checkpoint.get(key), dict) else {} for key in ('meta', 'message_hub'))
    info = hub.get('runtime_info', {})
    done, planned, steps, all_steps = meta.get('epoch'), info.get('max_epochs'), meta.get('iter'), info.get('max_iters')
    known = all(isinstance(number, int) for number in (done, planned, steps, all_steps))
    at_its_end = not known or done >= planned or steps >= all_steps or bool(info.get('stopped_early'))
    return None if at_its_end else f'epoch {done} of {planned}'


def check_weights(weights: dict[str, Tensor], wanted: dict[str, Tensor], path: str | Path, name: str) -> None:
    """Raises InputError where ``weights``, of the file ``path``, are not those ``wanted``; the line names the first keys."""
    wrong = [f'no {key}' for key in wanted if key not in weights]
    wrong += [f'unknown {key}' for key in weights if key not in wanted]
    wrong += [f'{key} is {tuple(weights[key].shape)}, not {tuple(wanted[key].shape)}'
              for key in wanted if key in weights and weights[key].shape != wanted[key].shape]
    wrong += [f'{key} is {weights[key].dtype}, not {wanted[key].dtype}' for key in wanted
              if key in weights and wanted[key].is_floating_point() > weights[key].is_floating_point()]
    if wrong:
        more = f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''
        raise InputError(f'{path} is not a checkpoint of this {name}: {"; ".join(wrong[:3])}{more}')


def load_network(network: nn.Module, path: str | Path, name: str) -> None:
    """Fill ``network`` with the weights at ``path``, all of them.

    Raises:
        InputError: the checkpoint is of another architecture, and the line names the first keys that do not fit; or a weight is
            not finite.
    """
    untrained = network.state_dict()
    weights = fitted(read_network(path), untrained)
    check_weights(weights, untrained, path, name)
    check_finite(weights, untrained, path)
    network.load_state_dict(weights, strict=False)       # compared above; SwinV2 takes its constants out while it is loaded
