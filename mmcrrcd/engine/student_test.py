"""The test of a student by the data, the pipeline and the metrics of its config."""
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.evaluator import Evaluator
from torch.utils.data import DataLoader

from mmcrrcd.checkpoint import class_names_in, find_checkpoint, load_network, read_checkpoint
from mmcrrcd.config import kind, preprocessor_of
from mmcrrcd.datasets.transforms.resolution_pair import SETTINGS
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.data import reads_bgr
from mmcrrcd.generators import generators_kept
from mmcrrcd.models.networks import unwrapped

from .classes import check_classes, check_labels, classes_of, place_of
from .launch import build_runner, prepare_processes
from .settings import check_pairs
from .trial import try_evaluator

TRAINING_ONLY = ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'val_dataloader', 'val_cfg',
                 'val_evaluator', 'custom_hooks', 'load_from')


def onnx_model(cfg: Config, file: Path) -> dict:
    """The settings of a model that shows the images of a config's test to an ONNX file.

    The file does what comes after the downsampling, so nothing here does: no upsampling, no normalization.
    """
    settings = preprocessor_of(cfg)
    for step in cfg.test_dataloader.dataset.get('pipeline', ()):
        if kind(step) in ('ResolutionPair', 'StudentView'):
            step['upsample'] = False
    low = {key: settings[key] for key in SETTINGS if key != 'upsample' and settings.get(key) is not None}
    return dict(type='mmcrrcd.OnnxClassifier', file=str(file), data_preprocessor=dict(
        type='mmcrrcd.PairPreprocessor', mean=[0.] * 3, std=[1.] * 3, to_rgb=reads_bgr(cfg), **low))


def test_student(cfg: Config, checkpoint: str | Path, launcher: str = 'none', amp: bool = False,
                 predictions: str | None = None) -> dict[str, float]:
    """The metrics of a student.

    Args:
        cfg: of its training, or of an exported student; what only training needs is taken out of it.
        checkpoint: file or work directory, of a training, of an exported student, of mmpretrain; or an ONNX file.
        launcher: see :func:`prepare_processes`.
        amp: bfloat16 autocast.
        predictions: file for all predictions, see :class:`KeepPredictions`.

    Raises:
        InputError, FileNotFoundError: no such checkpoint, or it is another network's, or the config has no test.
    """
    checkpoint = find_checkpoint(checkpoint)
    check_pairs(cfg, 'test_dataloader')
    onnx = checkpoint.suffix.lower() == '.onnx'
    missing = [key for key in ('test_dataloader', 'test_evaluator', 'test_cfg') if cfg.get(key) is None]
    if missing:
        raise InputError(f'{cfg.filename} has no {missing[0]}; for face networks see tools/verify_faces.py')
    if onnx and (amp or launcher != 'none'):
        raise InputError(f'{checkpoint} is tested in one process and as it is: leave --amp and --launcher out')
    if onnx:
        cfg.model = onnx_model(cfg, checkpoint)
    elif 'student' in cfg.model:
        model = dict(type='mmcrrcd.Distiller', student=cfg.model.student)
        if 'data_preprocessor' in cfg.model:
            model['data_preprocessor'] = cfg.model.data_preprocessor
        cfg.model = model
    for key in TRAINING_ONLY:
        cfg[key] = None
    cfg.resume = False
    if predictions:
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        cfg.test_evaluator = [*evaluators, dict(type='mmcrrcd.KeepPredictions', file=predictions)]
    prepare_processes(cfg, launcher)
    runner = build_runner(cfg)
    model = unwrapped(runner.model)
    if not onnx:
        load_network(getattr(model, 'student', model), checkpoint, 'student')
        known = class_names_in(read_checkpoint(checkpoint), checkpoint)
        tested = runner.test_loop.dataloader.dataset
        check_classes(known, classes_of(tested), 'test_dataloader', place_of(tested))
    check_labels(model, runner.test_loop.dataloader.dataset, 'test_dataloader')
    if amp:
        model.forward = torch.autocast(get_device(), torch.bfloat16)(model.forward)
    if isinstance(runner.test_loop.evaluator, Evaluator) and isinstance(runner.test_loop.dataloader, DataLoader):
        with generators_kept():
            try_evaluator(model, runner.test_loop.dataloader, runner.test_loop.evaluator, 'test')
    return runner.test()
