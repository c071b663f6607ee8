"""The teacher's accuracy before its student is trained: a teacher that is shown images wrongly teaches wrongly."""
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data._utils.fetch import _MapDatasetFetcher

from mmcrrcd.checkpoint import class_names_in, find_checkpoint, image_size_in, read_checkpoint
from mmcrrcd.engine.build_cache import teacher_is_there, without_objective
from mmcrrcd.engine.classes import number_of_classes
from mmcrrcd.errors import InputError
from mmcrrcd.generators import generators_kept
from mmcrrcd.models.algorithms import Distiller
from mmcrrcd.models.networks import extract, unwrapped
from mmcrrcd.models.preprocessor import PairPreprocessor
from mmcrrcd.registry import HOOKS

IMAGES, SECONDS, BATCH = 1000, 20, 50
TRIED = 200                                              # images by which other normalizations are compared
GAP, SIGMAS = 5.0, 3.0                                   # points, and standard deviations, that are worth a line
NORMALIZATIONS = {
    "ImageNet's mean and std": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    'mean=127.5, std=127.5': ((127.5,) * 3, (127.5,) * 3),
    'mean=0, std=255': ((0.,) * 3, (255.,) * 3),
    'mean=0, std=1': ((0.,) * 3, (1.,) * 3),
}


def evenly_drawn(loader: DataLoader, number: int) -> Iterator[dict]:
    """Batches of ``number`` images from all over the data, in an order in which any first part is spread evenly, too."""
    size = len(loader.dataset)
    places = np.linspace(0, size - 1, min(number, size)).astype(int)
    places = np.random.default_rng(0).permutation(places)
    fetcher = _MapDatasetFetcher(loader.dataset, True, loader.collate_fn, False)
    for start in range(0, len(places), BATCH):
        yield fetcher.fetch(places[start:start + BATCH].tolist())


def variants(preprocessor: PairPreprocessor) -> dict[str, Callable[[Tensor], Tensor]]:
    """What else could be meant, by its name: red and blue swapped, and the usual normalizations."""
    here = [tuple(values.flatten().tolist()) for values in (preprocessor.mean, preprocessor.std)]
    found = {'red and blue swapped': (*here, not preprocessor.to_rgb)}
    found |= {name: (*values, preprocessor.to_rgb) for name, values in NORMALIZATIONS.items()
              if not np.allclose(values, here, rtol=0.02, atol=0.5)}
    device = preprocessor.mean.device
    return {name: PairPreprocessor(*settings).to(device).normalize for name, settings in found.items()}


def said_by(checkpoint: str | Path) -> float | None:
    """The accuracy that a teacher's training, or its import, has left; None where there is none."""
    try:
        file = find_checkpoint(checkpoint)
        beside = file.parent / 'evaluated.json'
        if beside.is_file() and file.name == 'imported.pth':
            return float(json.loads(beside.read_text())['accuracy/top1'])
        best = (read_checkpoint(file).get('message_hub') or {}).get('runtime_info', {}).get('best_score')
    except (FileNotFoundError, InputError, ValueError, KeyError, TypeError):       # what is wrong is said where it is loaded
        return None
    return float(best) if isinstance(best, (int, float)) else None


def what_differs(checkpoint: str | Path, preprocessor: PairPreprocessor, size: tuple[int, int], classes) -> list[str]:
    """In what the teacher's training had other images, or showed them otherwise, as far as its checkpoint tells."""
    file = find_checkpoint(checkpoint)
    whole = read_checkpoint(file)
    meta = whole.get('meta') or {}
    there = ((meta.get('settings') or {}).get('model') or {}).get('data_preprocessor') or {}
    here = dict(mean=preprocessor.mean.flatten().tolist(), std=preprocessor.std.flatten().tolist(), to_rgb=preprocessor.to_rgb)
    found = [f'{name} {there[name]} there, {[round(x, 3) for x in value] if name != "to_rgb" else value} here'
             for name, value in here.items() if there.get(name) is not None and not np.allclose(there[name], value, atol=0.01)]
    recorded = image_size_in(checkpoint)
    if recorded and tuple(recorded) != tuple(size):
        found.append('images of {}×{} px there, '.format(*recorded) + '{}×{} px here'.format(*size))
    known = class_names_in(whole, file)
    if known and classes and known != tuple(classes):
        first = [', '.join(map(str, names[:3])) for names in (known, classes)]
        found.append(f'its classes begin with {first[0]}, and here with {first[1]}')
    return found


@HOOKS.register_module()
class TeacherTestHook(Hook):
    """Tests the teacher on the student's validation images, as the student's data and preprocessor show them to it.

    The accuracy is printed before training begins. A line says what may be wrong where it is far below that of the teacher's
    own training. So does one where the teacher knows the images better in another form: with red and blue swapped, or
    normalized by other numbers. Of many images a sample is seen, of a slow teacher fewer: it takes a second on a GPU, and at
    most 20 + 20 on a CPU. Where the answers come from a cache the teacher is built for the test, if its weights are there.

    It is silent without labels, without logits of the student's classes, without validation data, and where a training goes
    on.

    Args:
        images: so many at most.
    """

    priority = 'LOW'                                     # after CheckInputHook

    def __init__(self, images: int = IMAGES):
        self.images = images

    def before_train(self, runner) -> None:
        """Tests the teacher on validation images, where there is one and its answers can be right or wrong."""
        model = unwrapped(runner.model)
        loader = getattr(runner.val_loop, 'dataloader', None)
        if (not is_main_process() or runner.iter or not isinstance(model, Distiller) or not model.has_teacher
                or not isinstance(model.data_preprocessor, PairPreprocessor) or not isinstance(loader, DataLoader)):
            return
        with generators_kept(), torch.no_grad():
            teacher = self.teacher_of(runner, model)
            if teacher is not None:
                self.test(runner, model, teacher, loader)

    @staticmethod
    def teacher_of(runner, model: Distiller) -> nn.Module | None:
        """The teacher of a model; where it has a cache in its place the network from the config, if that is there."""
        if model.teacher is not None:
            return model.teacher
        settings = runner.cfg.model
        if not teacher_is_there(settings):
            return None
        with DefaultScope.overwrite_default_scope(runner.cfg.get('default_scope') or 'mmpretrain'):
            built = without_objective(settings, settings.data_preprocessor)
        built.load_teacher()
        return built.teacher.to(next(model.parameters()).device)

    def test(self, runner, model: Distiller, teacher: nn.Module, loader: DataLoader) -> None:
        """Says what :class:`TeacherTestHook` promises."""
        preprocessor, batches, right, start = model.data_preprocessor, [], [], time.monotonic()
        for batch in evenly_drawn(loader, self.images):
            images, labels = preprocessor.large(batch)
            if labels is None:
                return
            logits = extract(teacher, preprocessor.normalize(images)).logits
            if logits is None or logits.shape[1] != (number_of_classes(model) or logits.shape[1]):
                return                                   # it knows no classes, or others
            if len(batches) * BATCH < TRIED:
                batches.append((images, labels))
            right.append(logits.argmax(1) == labels)
            if time.monotonic() - start > SECONDS:
                break
        right, size = torch.cat(right), tuple(batches[0][0].shape[2:])
        accuracy, total = 100 * right.float().mean().item(), len(loader.dataset)
        of = f'the {total:,}' if len(right) == total else f'{len(right):,} of the {total:,}'
        runner.logger.info(f'the teacher knows {accuracy:.2f} % of {of} validation images, as this training shows them to it')
        found = self.better(teacher, preprocessor, batches, right)
        path = model.teacher_checkpoint or runner.cfg.model.get('teacher_checkpoint')
        expected = said_by(path) if path else None
        error = (accuracy * (100 - accuracy) / len(right))**0.5
        if expected is not None and expected - accuracy > max(GAP, SIGMAS * error):
            differs = what_differs(path, preprocessor, size, (getattr(loader.dataset, 'metainfo', None) or {}).get('classes'))
            found = [f'its own training ended with {expected:.2f} %', *differs, *found]
            if len(found) == 1:
                found.append('its images may have had other channels, mean, std, size or classes')
        if found:
            runner.logger.warning(f'the teacher may see its images wrongly: {"; ".join(found)}')

    @staticmethod
    def better(teacher: nn.Module, preprocessor: PairPreprocessor, batches: list[tuple[Tensor, Tensor]],
               right: Tensor) -> list[str]:
        """The form of the images in which the teacher knows far more of ``batches`` than of ``right``, in words."""
        best, start = [], time.monotonic()
        for name, normalize in variants(preprocessor).items():
            if time.monotonic() - start > SECONDS:
                break
            hits = torch.cat([extract(teacher, normalize(images)).logits.argmax(1) == labels for images, labels in batches])
            here = right[:len(hits)]
            gained, lost = ((hits & ~here).sum().item(), (here & ~hits).sum().item())
            points = 100 * (gained - lost) / len(hits)
            if points > GAP and gained - lost > SIGMAS * (gained + lost)**0.5:
                best.append((points, f'with {name} it knows {points:.0f} points more'))
        return [max(best)[1]] if best else []
