"""A student for the model zoo."""
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.config import Config
from torch import Tensor

from mmcrrcd.checkpoint import check_finite, find_checkpoint
from mmcrrcd.config import check_types, kind, preprocessor_of, short_types, without_training
from mmcrrcd.datasets import ImageArrays
from mmcrrcd.datasets.transforms.student_view import sides
from mmcrrcd.errors import InputError, first_line
from mmcrrcd.evaluation.classifier import load_classifier
from mmcrrcd.evaluation.data import config_with_model, test_data
from mmcrrcd.evaluation.embeddings import accuracy
from mmcrrcd.files import write_json, write_whole
from mmcrrcd.inference import Student, build_student, only_a_student
from mmcrrcd.safetensors_file import read_safetensors, to_safetensors
from mmcrrcd.torch_file import save_whole
from mmcrrcd.zoo import read_metafile

from .measures import count_macs
from .mmpretrain_folder import student_settings
from .student_files import check_export, test_images, training_config


def small(tensor: Tensor) -> Tensor:
    """Weights of convolutions and linear layers in float16; the few others, such as those of batch norms, as they are."""
    return tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor


def zoo_config(cfg: Config, student: Student) -> dict:
    """What of a training's config is needed to ask its student, and to find its test data."""
    preprocessor = preprocessor_of(cfg)
    model = dict(student=without_training(student_settings(cfg)), data_preprocessor=short_types(dict(preprocessor)))
    loader = dict(batch_size=100, dataset=short_types(test_data(cfg).to_dict()))
    return dict(model=model, image_size=student.classifier.side, test_dataloader=loader)


@contextmanager
def as_training(weights: Path) -> Iterator[tuple[Config, Path]]:
    """A student of the model zoo as a config, read as data, and a checkpoint, which is there in the block: for
    :func:`export_student`.
    """
    known, metafile = read_metafile(weights), weights.with_suffix('.json')
    cfg = only_a_student(config_with_model(Config(known['config'], filename=str(metafile))), metafile)
    check_types(cfg.to_dict(), metafile)
    state = {key: value.float() if value.is_floating_point() else value for key, value in read_safetensors(weights).items()}
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / f'{weights.stem}.pth'
        save_whole(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=known['classes']))), checkpoint)
        yield cfg, checkpoint


def teacher_of(cfg: Config, data: ImageArrays, log: Callable[[str], None]) -> dict:
    """The entry of the teacher's accuracy; empty, and a line says why, where that cannot be measured."""
    if not (cfg.model.get('teacher') and cfg.model.get('teacher_checkpoint')):
        return {}
    try:
        teacher = load_classifier(cfg, '', teacher=True)
        return dict(teacher={str(sides(teacher.side)[0]): round(accuracy(teacher, data, 'teacher'), 2)})
    except (FileNotFoundError, InputError) as error:
        log(f'without the accuracy of the teacher: {first_line(error)}')
        return {}


def write_zoo_student(config: Config | str | Path | None, path: str | Path, file: str | Path, command: str,
                      even_unfinished: bool = False, overwrite: bool = False, log: Callable[[str], None] = print) -> dict:
    """Writes the student of a training as ``file``, a safetensors file, and a metafile in JSON beside it, which is returned.

    The accuracy in it is that of the weights as they are written, on the training's test images.

    Args:
        config, path, even_unfinished, overwrite, log: see :func:`export_student`.
        command: by which the student was trained.

    Raises:
        InputError, FileNotFoundError: something is missing, the test images included, is there already, or does not fit.
    """
    file, checkpoint = Path(file), find_checkpoint(path)
    if file.suffix != '.safetensors':
        raise InputError(f'a student of the model zoo is a file that ends in .safetensors, got {file}')
    metafile = file.with_suffix('.json')
    check_export(checkpoint, [file, metafile], even_unfinished, overwrite)
    cfg = training_config(config, checkpoint)
    student = build_student(cfg, checkpoint)
    settings, data, classifier = zoo_config(cfg, student), test_images(cfg), student.classifier
    weights = {key: small(value.cpu()) for key, value in classifier.network.state_dict().items()}
    check_finite(weights, {}, f'{checkpoint} in float16')
    classifier.network.load_state_dict(weights, strict=False)            # its own names
    accuracies = {}
    for view in student.views:
        height, width = view.resolution
        seen = classifier.at(view.resolution) if classifier.resolutions else classifier
        accuracies[str(height) if height == width else f'{height}x{width}'] = round(accuracy(seen, data, f'{view}'), 2)
    content = to_safetensors(weights)
    dataset = settings['test_dataloader']['dataset']
    known = dict(accuracy=accuracies, **teacher_of(cfg, data, log), images=len(data),
                 data=kind(dataset.get('arrays', dataset)).removesuffix('Arrays'),
                 parameters=sum(p.numel() for p in classifier.network.parameters()),
                 macs=count_macs(classifier.network, *student.views[0].seen), command=command,
                 sha256=hashlib.sha256(content).hexdigest(), config=settings, classes=student.classes)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, content)
    write_json(metafile, known)
    log(f'wrote {file} ({len(content) / 1000:.0f} kB) and {metafile}')
    return known
