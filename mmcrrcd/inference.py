"""A trained student, to be asked: from a work directory, an exported folder, an ONNX file or the model zoo.

>>> student = mmcrrcd.load_student('work_dirs/resnet56_resnet20_cifar100_8px')
>>> student.predict('camera/')[0].name
'apple'
"""
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from PIL import Image

from mmcrrcd import zoo
from mmcrrcd.checkpoint import class_names_in, find_checkpoint, read_checkpoint
from mmcrrcd.config import check_network, check_steps, kind, read_text, read_values, short_types, without_training
from mmcrrcd.datasets import StudentView
from mmcrrcd.datasets.read_image import SUFFIXES, ImageError, read_image, to_rgb
from mmcrrcd.datasets.transforms.resolution_pair import SETTINGS
from mmcrrcd.datasets.transforms.student_view import Size, distance
from mmcrrcd.errors import InputError, check_positive, explained, first_line
from mmcrrcd.evaluation.classifier import Classifier, load_classifier
from mmcrrcd.evaluation.data import config_with_model, plain_size, steps_of
from mmcrrcd.models import OnnxClassifier

ImageLike = str | Path | Image.Image | np.ndarray


class Prediction(NamedTuple):
    """What a student says of one image.

    ``label`` is the number of the class, ``name`` its name, or the number as text where the training's data had no names,
    ``probability`` its probability. ``probabilities`` (classes,) are those of all. ``pixels`` are height and width of what the
    student saw. ``file`` is None for images that were given as such.
    """
    label: int
    name: str
    probability: float
    probabilities: np.ndarray
    pixels: tuple[int, int]
    file: str | None


def find_images(path: str | Path) -> list[Path]:
    """``path`` itself, or the images in the folder and below it, sorted.

    Raises:
        FileNotFoundError, InputError: there is no such path, or no image in it.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f'there is no image or folder {path}')
    files = sorted(file for file in path.rglob('*') if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise InputError(f'no image in {path} (looked for {", ".join(sorted(SUFFIXES))})')
    return files


def pixels_of(image: ImageLike) -> np.ndarray:
    """Any image as (H, W, 3) uint8 RGB.

    Raises:
        ImageError, InputError: of a file, of an array. PIL's own images raise many kinds where their files are damaged.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or image.ndim == 3 and image.shape[2] in (1, 3)) or not image.size:
            raise InputError('an array is an image (H, W), (H, W, 1) or RGB (H, W, 3) in uint8, got '
                             f'{image.shape} {image.dtype}')
        return np.array(np.broadcast_to(image if image.ndim == 3 else image[..., None], (*image.shape[:2], 3)))
    if isinstance(image, Image.Image):
        return np.array(to_rgb(image))
    return np.array(read_image(image))


def listed(images: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    """Single images, from one, a folder, an array (N, H, W, 3), or a list of any of these."""
    if isinstance(images, (str, Path)):
        return find_images(images)
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return list(images)
    if isinstance(images, (np.ndarray, Image.Image)):
        return [images]
    if not isinstance(images, Iterable):
        raise InputError(f'an image is a path, a PIL image or an array, got a {type(images).__name__}')
    return [single for each in images for single in listed(each)]


class Student:
    """A classifier of images of any size. :func:`load_student` makes it.

    Args:
        classifier: the network with its normalization.
        views: what it sees, one for each resolution that it has learned from. Of several, an image is seen in the nearest.
        classes: their names, in the order of the labels.
        source: where it comes from.
    """

    def __init__(self, classifier: Classifier, views: Sequence[StudentView], classes: Sequence[str], source: str):
        self.classifier, self.views, self.classes, self.source = classifier, list(views), tuple(classes), source

    def __str__(self) -> str:
        """To what images are resized, in words."""
        *others, last = self.views
        return f'{"the nearest of " if others else ""}{"".join("{}×{}, ".format(*view.resolution) for view in others)}{last}'

    def see(self, image: ImageLike) -> np.ndarray:
        """(h, w, 3) uint8 RGB, what the student sees of an image."""
        pixels = pixels_of(image)
        view = min(self.views, key=lambda view: distance(pixels.shape[:2], view.resolution))
        seen = view(dict(img=pixels[..., ::-1] if view.gray else pixels))['img']
        return np.broadcast_to(seen, (*seen.shape[:2], 3))

    def ask(self, seen: np.ndarray) -> np.ndarray:
        """Probabilities (N, classes) float32 of images as :meth:`see` gives them."""
        images = torch.from_numpy(np.ascontiguousarray(seen)).permute(0, 3, 1, 2).to(get_device())
        return self.classifier.ask(images).logits.softmax(1).cpu().numpy()

    def embed(self, images: ImageLike | Iterable[ImageLike]) -> np.ndarray:
        """Embeddings (N, D) float32 of images of any sizes, in their order; what a student without classes is asked for.

        Args:
            images: see :meth:`predict`.

        Raises:
            InputError, FileNotFoundError: there is no image, one cannot be read, or the student is an ONNX file, which gives
                probabilities only.
        """
        found = []
        for seen in map(self.see, listed(images)):       # one at a time: with several resolutions their sizes differ
            pixels = torch.from_numpy(np.array(seen)).permute(2, 0, 1)[None].to(get_device())
            embedding = self.classifier.ask(pixels).embedding
            if embedding is None:
                raise InputError(f'{self.source} gives probabilities, and no embedding: name the work directory')
            found.append(embedding.cpu().numpy())
        return np.concatenate(found)

    def predict(self, images: ImageLike | Iterable[ImageLike], batch_size: int = 64,
                unreadable: list[dict] | None = None) -> list[Prediction]:
        """The class of each image.

        Args:
            images: a file, a folder, a PIL image, an array of RGB in uint8, or a list of these. An array is (H, W, 3), of
                several images with N before it.
            batch_size: images that the network sees at once.
            unreadable: where it is a list, images that cannot be read are put there, as ``dict(file, reason)``.

        Raises:
            InputError, FileNotFoundError: there is no image, or, without ``unreadable``, one cannot be read.

        Example:
            >>> for answer in student.predict('camera/'):
            ...     print(answer.file, answer.name, answer.probability)
        """
        check_positive(whole=True, batch_size=batch_size)
        found, images = {}, listed(images)
        seen = {}
        for i, image in enumerate(images):
            try:
                seen[i] = self.see(image)
            except Exception as error:                   # Pillow raises many kinds for its images of damaged files
                name = str(image) if isinstance(image, (str, Path)) else f'image {i}'
                reason = error.reason if isinstance(error, ImageError) else first_line(error)
                if unreadable is None:
                    raise ImageError(name, reason) from error
                unreadable.append(dict(file=name, reason=reason))
        for shape in dict.fromkeys(each.shape for each in seen.values()):        # several resolutions, several shapes
            same = [i for i, each in seen.items() if each.shape == shape]
            for part in (same[start:start + batch_size] for start in range(0, len(same), batch_size)):
                found |= zip(part, self.ask(np.stack([seen[i] for i in part])))
        return [self._prediction(found[i], seen[i].shape[:2], images[i]) for i in sorted(found)]

    def _prediction(self, probabilities: np.ndarray, pixels: tuple[int, int], image: ImageLike) -> Prediction:
        label = int(probabilities.argmax())
        file = str(image) if isinstance(image, (str, Path)) else None
        return Prediction(label, self.classes[label], float(probabilities[label]), probabilities, pixels, file)


def find_config(folder: Path) -> Path:
    """The config that a training leaves in its work directory, which may be somebody else's: it is to be read as data."""
    found = sorted(folder.glob('*.py'))
    if len(found) != 1:
        raise InputError(f'{folder} holds {len(found)} configs, expected one: name the config of the training')
    return found[0]


def transforms_of(cfg: Config) -> list[dict]:
    """Those of the test pipeline between the file and what the student sees, for images that are not natively small."""
    steps = list(steps_of(cfg))
    exported = [step for step in steps if kind(step) == 'StudentView']
    if exported:
        return list(exported[0].get('large', ()))
    stop = next((i for i, step in enumerate(steps) if kind(step) in ('ResolutionPair', 'PackInputs')), len(steps))
    return [step for step in steps[:stop] if kind(step) != 'LoadImageFromFile']


def student_view(cfg: Config, classifier: Classifier) -> dict:
    """Settings of the :class:`StudentView` by which a student sees images of any size as in the tests of its training."""
    steps = list(steps_of(cfg))
    exported = [step for step in steps if kind(step) == 'StudentView']
    if exported:
        return {key: value for key, value in exported[0].items() if key != 'type'}
    large = [short_types(dict(step)) for step in transforms_of(cfg)]
    view = dict(resolution=classifier.downsampling.get('resolution') or classifier.side, image_size=classifier.side)
    view |= {key: value for key, value in classifier.downsampling.items() if key != 'resolution'}
    if not view.get('upsample'):
        view.pop('upsample', None)
    if any(step.get('color_type') == 'grayscale' for step in steps):
        view['gray'] = True
    return view | (dict(large=large) if large else {})


def load_onnx(file: Path) -> Student:
    """The student in an ONNX file, see :class:`OnnxClassifier`."""
    network = OnnxClassifier(file)
    view = dict(resolution=network.resolution, image_size=network.resolution) | network.view
    identity = dict(mean=(0., 0., 0.), std=(1., 1., 1.))
    downsampling = {key: view[key] for key in SETTINGS if key in view and key != 'upsample'}
    check_steps(view.get('large', ()), file)
    try:
        classifier = Classifier(network, identity, plain_size(view['image_size']), downsampling)
        views = [StudentView(**view | dict(resolution=network.resolution, upsample=False, gray=False))]      # the network does
    except (AttributeError, KeyError, TypeError, ValueError) as error:   # InputError is one, too
        reason = f' ({first_line(error)})' if isinstance(error, InputError) else ''
        raise InputError(f'{file}: its metadata are not those that tools/export_student.py writes{reason}') from error
    return Student(classifier, views, network.classes, str(file))


def build_student(cfg: Config, path: str | Path, resolution: Size | None = None,
                  names: Sequence[str] | None = None) -> Student:
    """The student of the settings ``cfg`` with the weights of a checkpoint, or of a work directory's last one.

    ``names`` are those of the classes, by default those that the checkpoint tells.
    """
    classifier = load_classifier(cfg, str(path))
    view = student_view(cfg, classifier)
    sizes = [resolution] if resolution is not None else list(classifier.resolutions) or [view['resolution']]
    views = [StudentView(**view | dict(resolution=size)) for size in sizes]
    classes = getattr(getattr(classifier.network, 'head', None), 'num_classes', None)
    if classes is None:                                  # a head of somebody's own: try it
        zeros = torch.zeros(1, 3, *views[0].seen, dtype=torch.uint8, device=get_device())
        classes = classifier.ask(zeros).logits.shape[1]
    file = find_checkpoint(path)
    names = (class_names_in(read_checkpoint(file), file) if names is None else names) or ()
    return Student(classifier, views, list(map(str, names if len(names) == classes else range(classes))), str(file))


def read_student(path: Path) -> Config:
    """The settings in the config that a training or an export has left, of which only those of a student may be built.

    Raises:
        InputError: it is a program, or the student is of other code than that of known libraries.
    """
    try:
        return only_a_student(config_with_model(read_values(read_text(path), path)), path)
    except InputError as error:
        raise InputError(f'{error}; if you trust it, name it as the config') from error


def only_a_student(cfg: Config, source: Path) -> Config:
    """Settings from elsewhere, of which the student may be built. Raises InputError where it is of unknown code."""
    network = without_training(cfg.model.get('student', cfg.model).to_dict())
    check_network(network, source)
    check_steps(transforms_of(cfg), source)
    cfg.model = cfg.model | dict(student=network) if 'student' in cfg.model else network
    return cfg


def load_zoo_student(weights: Path, resolution: Size | None) -> Student:
    """A student of the model zoo, or of two files like those, see :mod:`mmcrrcd.zoo`."""
    known, metafile = zoo.read_metafile(weights), weights.with_suffix('.json')
    with explained(f'{metafile} does not describe a student', (AttributeError, KeyError, TypeError, ValueError)):
        cfg = only_a_student(config_with_model(Config(known['config'], filename=str(metafile))), metafile)
        student = build_student(cfg, weights, resolution, known['classes'])
    if student.classes != tuple(known['classes']):
        raise InputError(f'{metafile} names {len(known["classes"])} classes, its student knows {len(student.classes)}')
    return student


def in_the_zoo(name: str | Path) -> Path:
    """The path of a student: ``name`` itself where there is something, or the weights of that student of the model zoo.

    Raises:
        FileNotFoundError: neither is there.
    """
    path = Path(name)
    if path.exists() or path.name != str(name) or path.suffix:
        return path
    try:
        return zoo.find(str(name))
    except InputError as error:
        raise FileNotFoundError(f'no checkpoint at {name}, and {error}') from error


def load_student(path: str | Path, config: str | Path | None = None, resolution: Size | None = None) -> Student:
    """A trained student that predicts.

    Args:
        path: work directory of a training, folder of an exported student, checkpoint with its config beside it, or ONNX file.
            Or the name of a student of the model zoo.
        config: file to take in place of the config in the folder. A config is a Python program: **one that is named here is
            run**. In a folder only a config of plain values is read, as a training and an export leave it. Only networks of
            mmpretrain and this package are built. So nothing in a folder from elsewhere is run.
        resolution: what the student shall see, a side in pixels or height and width; by default as in its training's tests.
            Of several in its training it is the nearest to the image's own.

    Raises:
        InputError, FileNotFoundError: there is no student, the training is not finished, or it is none that can be read so.

    Example:
        >>> student = mmcrrcd.load_student('resnet20_cifar100_8px')
        >>> answer, = student.predict('image.png')
        >>> answer.name, answer.probability
        ('apple', 0.93)
    """
    path = in_the_zoo(path)
    if path.suffix == '.safetensors' and config is None:
        return load_zoo_student(path, resolution)
    if path.suffix.lower() == '.onnx':
        if config is not None or resolution is not None:
            raise InputError(f'{path} has its resolution and its settings in it: leave config and resolution out')
        return load_onnx(path)
    exported = path / 'student.pth'
    file = exported if exported.is_file() else find_checkpoint(path)
    if config is None:
        folder = path if path.is_dir() else path.parent
        beside = file.with_suffix('.py')
        config = beside if beside.is_file() else find_config(folder)
        cfg = read_student(config)
    else:
        cfg = config_with_model(str(config))
    try:
        return build_student(cfg, file if exported.is_file() else path, resolution)   # a folder is asked whether it is finished
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f'{config}: {error}') from error
