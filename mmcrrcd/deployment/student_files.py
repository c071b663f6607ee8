"""All files of a student, checked and measured."""
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmpretrain.models import ImageClassifier

from mmcrrcd.checkpoint import find_checkpoint, read_checkpoint, step_of, unfinished
from mmcrrcd.config import check_network, known, parse_config, read_text, without_training
from mmcrrcd.datasets import ImageArrays, StudentView, downsample
from mmcrrcd.datasets.transforms.student_view import sides
from mmcrrcd.engine.own_data import data_sets
from mmcrrcd.errors import InputError, explained, first_line
from mmcrrcd.evaluation.batch_norm import fit_batch_norms, training_images
from mmcrrcd.evaluation.classifier import Classifier
from mmcrrcd.evaluation.data import config_with_model, evenly, own_images
from mmcrrcd.inference import Student, build_student, find_config, find_images, student_view
from mmcrrcd.onnx_session import need, open_session

from .measures import Measured, measure
from .mmpretrain_folder import FILES, export_folder, student_settings
from .onnx_file import DeployedStudent, export_onnx, probabilities_of, quantize

CALIBRATION, CHECKED, TESTED = 500, 256, 10_000


def test_images(cfg: Config) -> ImageArrays:
    """The config's test images where they are; they are not downloaded. Raises InputError or FileNotFoundError elsewhere."""
    cfg = Config(cfg.to_dict(), filename=cfg.filename)
    for part in data_sets(cfg):
        kind = known(part['type']) if isinstance(part.get('type'), str) else part.get('type')
        if isinstance(kind, type) and 'download' in inspect.signature(kind).parameters:
            part['download'] = False
    of_data_sets = AssertionError, OSError, RuntimeError, ValueError
    with explained(f'the test images of {cfg.filename} cannot be read', of_data_sets, first_line):
        return own_images(cfg, TESTED)


def low_images(classifier: Classifier, data: ImageArrays) -> np.ndarray:
    """(N, h, w, 3) uint8, the images of ``data`` at the student's resolution."""
    settings = {key: value for key, value in classifier.downsampling.items() if key != 'upsample'}
    parts = []
    for index in torch.arange(len(data)).split(500):
        images = data.__getitems__(index)['inputs'].cpu()
        if tuple(images.shape[2:]) != sides(classifier.side):
            images = downsample(images, classifier.side)
        parts.append(downsample(images, **settings) if settings.get('resolution') else images)
    return torch.cat(parts).permute(0, 2, 3, 1).contiguous().numpy()


def as_in_training(student: Student, images: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) of images (N, h, w, 3) by the path of the training, not that of the exported network."""
    view, found = student.views[0], []
    with torch.backends.cudnn.flags(allow_tf32=False):
        for part in torch.from_numpy(images).permute(0, 3, 1, 2).split(256):
            if view.gray:
                part = (part * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True).round().byte()
            if view.upsample:
                part = downsample(part, view.image_size, **view.how)
            found.append(student.ask(part.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()))
    return np.concatenate(found)


def onnx_asker(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """From images to probabilities, on one thread."""
    session = open_session(str(file), threads=1)
    return lambda images: probabilities_of(session, images)


def torch_asker(network: DeployedStudent) -> Callable[[np.ndarray], np.ndarray]:
    """The same by PyTorch."""
    def ask(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(images)).numpy()

    return ask


def training_config(config: Config | str | Path | None, checkpoint: Path) -> Config:
    """The config that was named, which is run; or that beside the checkpoint, which may be somebody else's: it is read as data.

    Raises:
        InputError: there is none beside it, or several, or one that is more than data.
    """
    if config is not None:
        return config_with_model(config if isinstance(config, Config) else str(config))
    beside = find_config(checkpoint.parent)
    try:
        cfg = config_with_model(parse_config(read_text(beside), beside))
        check_network(without_training(cfg.model.to_dict().get('student')), beside)
        if address := next((value for part in data_sets(cfg) for value in part.values() if '://' in str(value)), None):
            raise InputError(f'{beside}: its data are at an address, {address!r}, and nothing is fetched')
        return cfg
    except InputError as error:
        raise InputError(f'{error}; if you trust it, name it by --config') from error


def int8_file(onnx: Path) -> Path:
    """Where the int8 version of an ONNX file goes."""
    return onnx.with_name(f'{onnx.stem}_int8{onnx.suffix}')


def check_export(checkpoint: Path, files: list[Path], even_unfinished: bool, overwrite: bool) -> None:
    """Raises InputError where the training of ``checkpoint`` is not at its end, or one of ``files`` is there, unless told; and
    where one is a pipe, a device or a folder.
    """
    is_last = step_of(checkpoint) is not None and find_checkpoint(checkpoint.parent) == checkpoint
    if is_last and not even_unfinished and (left := unfinished(read_checkpoint(checkpoint))):
        raise InputError(f'{checkpoint}: the training stopped after {left}: finish it with --resume, or add --unfinished')
    if file := next((file for file in files if file.exists() and not file.is_file()), None):
        raise InputError(f'{file} cannot be written: it is no regular file')
    if not overwrite and (file := next((file for file in files if file.exists() or file.is_symlink()), None)):
        raise InputError(f'{file} is there already: add --overwrite to replace it, or name another place by --out or --onnx')


def export_student(config: Config | str | Path | None, path: str | Path, out: str | Path | None = None,
                   resolution: int | None = None, onnx: Path | None = None, calibration: Path | None = None,
                   even_unfinished: bool = False, overwrite: bool = False,
                   log: Callable[[str], None] = print) -> list[Measured]:
    """Writes the student of a training for mmpretrain, and as ONNX; says by ``log`` what it wrote, and measures each file.

    Args:
        config: of the training. **One that is named is trusted**: it is run, and its test data are built, with whatever code
            it names. With None it is the one beside the checkpoint, which is read as data.
        path: work directory or checkpoint of the training.
        out: folder for the config and the checkpoint of mmpretrain, by default ``student`` beside the checkpoint.
        resolution: of a student trained at several resolutions: the one it will be used at. It gets the batch norm statistics
            of training images at that one; without it it keeps the mixed ones.
        onnx: file to write, or None.
        calibration: folder of images for an int8 version of it, or None.
        even_unfinished: though the training has not come to its end.
        overwrite: though some of the files are there, which are then replaced.

    Raises:
        InputError, FileNotFoundError: something is missing, is there already, does not fit, or the ONNX file differs from
            PyTorch.
    """
    if calibration is not None and onnx is None:
        raise InputError('an int8 version needs an ONNX file: name it by --onnx')
    if onnx is not None:
        need('onnx', 'onnxscript', 'onnxruntime')
    chosen = evenly_chosen(calibration)
    checkpoint = find_checkpoint(path)
    out = Path(out) if out else checkpoint.parent / 'student'
    wanted_files = [*(out / name for name in FILES), *([onnx] if onnx else []), *([int8_file(onnx)] if calibration else [])]
    check_export(checkpoint, wanted_files, even_unfinished, overwrite)
    cfg = training_config(config, checkpoint)
    student_settings(cfg)                                # is there a student?
    data = training_images(cfg) if resolution is not None else None
    if resolution is not None:
        cfg.model.data_preprocessor.resolution = resolution
    student = build_student(cfg, checkpoint)
    classifier = student.classifier
    if not isinstance(classifier.network, ImageClassifier):
        kind = type(classifier.network).__name__
        raise InputError(f'the student is a {kind}, no ImageClassifier: mmpretrain cannot build it')
    if resolution is not None:
        fit_batch_norms(classifier.network, cfg, data, resolution)
    settings = student_view(cfg, classifier)
    view = StudentView(**settings)
    student.views = [view]
    files = export_folder(classifier.network, cfg, settings, checkpoint, out)
    log(f'wrote {files[0]} and {files[1]}')
    if onnx is None:
        return []

    low = StudentView(**settings | dict(upsample=False, gray=False))
    camera = Student(classifier, [low], student.classes, student.source)
    images = np.stack([camera.see(file) for file in chosen]) if chosen else None
    labels = None
    try:
        data = test_images(cfg)
        tested, labels = low_images(classifier, data), data.labels.cpu().numpy()
        all_of = f'{len(tested):,} of the' if len(tested) == TESTED else f'the {len(tested):,}'
        log(f'accuracy on {all_of} test images of {cfg.filename}')
    except (InputError, FileNotFoundError) as error:
        log(f'no accuracy: {error}')
        noise = np.random.default_rng(0).integers(256, size=(CHECKED, *view.resolution, 3), dtype=np.uint8)
        tested = noise if images is None else images
        if images is None:
            log('no test images: the ONNX file is compared with PyTorch on random pixels')
    checked = tested[evenly(len(tested), CHECKED)]
    network = DeployedStudent(classifier, view)
    wanted = as_in_training(student, checked)
    notes = dict(classes=student.classes, view=dict(resolution=view.resolution, image_size=view.image_size, large=view.steps,
                                                    **view.how, **view.camera))
    difference = export_onnx(network, onnx, checked, wanted, notes)
    log(f'wrote {onnx}: probabilities differ from PyTorch by at most {difference:.1e} on {len(checked)} images')
    written = {files[1]: torch_asker(network), onnx: onnx_asker(onnx)}
    if images is not None:
        int8 = int8_file(onnx)
        quantize(onnx, images, int8)
        written[int8] = onnx_asker(int8)
        difference = np.abs(written[int8](checked) - wanted).max()
        log(f'wrote {int8}: ranges from {len(images)} images, probabilities differ by at most {difference:.1e}')
    return [measure(file, classifier.network, view.seen, ask, tested, labels) for file, ask in written.items()]


def evenly_chosen(folder: Path | None) -> list[Path]:
    """Up to 500 of the images in a folder, evenly spaced in their order."""
    files = [] if folder is None else find_images(folder)
    return [files[i] for i in evenly(len(files), CALIBRATION)]
