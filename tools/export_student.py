"""Write the student of a training as a checkpoint and a config for mmpretrain: ``python tools/export_student.py WORK_DIR``.

For networks of mmpretrain the result needs nothing of this package, unless the student saw a reduced resolution: the pipeline
then makes the student's images with ``mmcrrcd.ResolutionPair``, so that the logits are exactly those of the training's test.
A backbone of this package stays one; mmengine finds it by its name, ``mmcrrcd.ResNetCIFAR``, where mmcrrcd is installed.

A student that was trained at several resolutions can be exported for one (``--resolution``), with the batch norm statistics of
training images at that one; without the option it keeps the mixed ones.
"""
import argparse
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from mmengine.utils import get_object_from_string
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS

from mmcrrcd.checkpoint import find_checkpoint, load_network, read_checkpoint, safe_load, step_of, unfinished
from mmcrrcd.config import parse_config, read_config
from mmcrrcd.engine.launch import one_line_errors
from mmcrrcd.errors import InputError, printable
from mmcrrcd.evaluation.batch_norm import fit_batch_norms, training_images
from mmcrrcd.files import whole_file

PAIR, EXPORT = 'mmcrrcd.ResolutionPair', ('student.py', 'student.pth')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Write the student of a training for mmpretrain.')
    parser.add_argument('checkpoint', help='file, or work directory of a training')
    parser.add_argument('--config', help='config of the training (default: the one beside the checkpoint)')
    parser.add_argument('--resolution', type=int, metavar='PIXELS',
                        help='of a student trained at several resolutions: the one it will be used at')
    parser.add_argument('--unfinished', action='store_true', help='even if the training has not come to its end')
    parser.add_argument('--overwrite', action='store_true', help='even if there is an export already, which is then replaced')
    parser.add_argument('--out', help='folder for student.py and student.pth (default: student/ beside the checkpoint)')
    return parser.parse_args()


def find_config(checkpoint: Path, given: str | None) -> Config:
    """The config that was named, which is run; or that beside the checkpoint, which may be somebody else's: it is read as data.

    Raises:
        InputError: there is none beside it, or several, or one that is more than data.
    """
    if given:
        return read_config(given)
    found = sorted(checkpoint.parent.glob('*.py'))
    if len(found) != 1:
        raise InputError(f'{checkpoint.parent} holds {len(found)} configs, expected one: name that of the training by --config')
    try:
        cfg = parse_config(found[0].read_text(encoding='utf-8', errors='replace'), found[0])
    except InputError as error:
        raise InputError(f'{error}; if you trust it, name it by --config') from error
    if 'model' not in cfg:
        raise InputError(f'{found[0]} has no model: name the config of the training by --config')
    return cfg


def check_export(args: argparse.Namespace, checkpoint: Path, out: Path) -> None:
    """Raises InputError where the training of ``checkpoint`` is not at its end, or ``out`` has an export, unless told to."""
    is_last = step_of(checkpoint) is not None and find_checkpoint(checkpoint.parent) == checkpoint
    if is_last and not args.unfinished and (left := unfinished(read_checkpoint(checkpoint))):
        raise InputError(f'{checkpoint}: the training stopped after {left}: finish it with --resume, or add --unfinished')
    if (file := next((out / name for name in EXPORT if (out / name).exists()), None)) and not args.overwrite:
        raise InputError(f'{file} is there already: add --overwrite to replace it, or name another folder by --out')


def plain(value):
    """A part of a config with its types by their short names, ``ImageClassifier`` or ``mmcrrcd.ResNetCIFAR``."""
    if isinstance(value, dict):
        value = {key: plain(each) for key, each in value.items()}
        kind = value.get('type')
        kind = get_object_from_string(kind) if isinstance(kind, str) else kind
        if isinstance(kind, type):                       # else it is a short name already
            package = kind.__module__.split('.')[0]
            path = dict(mmengine='', mmcv='', mmpretrain='', mmcrrcd='mmcrrcd.').get(package, f'{kind.__module__}.')
            value['type'] = path + kind.__name__
        return value
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def test_pipeline(own: list[dict] | None, downsampling: dict) -> list[dict]:
    """From a file to what the student sees: the training's own pipeline, where it has one."""
    steps = [step for step in own or [dict(type='LoadImageFromFile')] if step['type'] != 'PackInputs']
    if downsampling.get('resolution') and not any(step['type'] == PAIR for step in steps):
        steps.append(dict(type=PAIR, **downsampling))
    low = any(step['type'] == PAIR for step in steps)
    return [*steps, dict(type='PackInputs', input_key='img_low' if low else 'img')]


def student_config(cfg: Config, student: dict) -> Config:
    """The config for mmpretrain; its test data are the training's, or a folder of images where those were arrays."""
    loader = cfg.get('test_dataloader') or cfg.get('train_dataloader')   # face networks train without a test
    if not loader:
        raise InputError(f'{cfg.filename} has neither test_dataloader nor train_dataloader: the test data are unknown')
    dataset = plain(loader.dataset.to_dict())
    preprocessor = plain((cfg.model.get('data_preprocessor') or cfg.data_preprocessor).to_dict())
    downsampling = {}
    if 'pipeline' not in dataset:                        # arrays of RGB; files are read as BGR
        dataset = dict(type='CustomDataset', data_root='data/test')
        preprocessor['to_rgb'] = not preprocessor.get('to_rgb', False)
    if preprocessor['type'] == 'mmcrrcd.PairPreprocessor':
        downsampling = {key: preprocessor[key] for key in ('resolution', 'interpolation', 'antialias', 'upsample')
                     if key in preprocessor}
        preprocessor = dict(type='ClsDataPreprocessor', mean=preprocessor['mean'], std=preprocessor['std'],
                            to_rgb=preprocessor.get('to_rgb', False))
    dataset['pipeline'] = test_pipeline(dataset.get('pipeline'), downsampling)
    return Config(dict(
        default_scope='mmpretrain', model=student, data_preprocessor=preprocessor,
        test_dataloader=dict(batch_size=loader.batch_size, num_workers=0, dataset=dataset,
                             sampler=dict(type='DefaultSampler', shuffle=False)),
        test_evaluator=dict(type='Accuracy', topk=(1, )), test_cfg=dict()))


def main() -> None:
    args = parse_args()
    with one_line_errors(), DefaultScope.overwrite_default_scope('mmpretrain'):
        checkpoint = find_checkpoint(args.checkpoint)
        out = Path(args.out) if args.out else checkpoint.parent / 'student'
        check_export(args, checkpoint, out)
        cfg = find_config(checkpoint, args.config)
        if 'student' not in cfg.model:
            raise InputError(f'the model of {args.config or f"the config beside {checkpoint}"} has no student')
        student = plain(cfg.model.student.to_dict())
        network = MODELS.build(student)
        if not isinstance(network, ImageClassifier):
            raise InputError(f'the student is a {type(network).__name__}, no ImageClassifier: mmpretrain cannot build it')
        load_network(network, checkpoint, 'student')
        if args.resolution is not None:
            fit_batch_norms(network.to(get_device()), cfg, training_images(cfg), args.resolution)
            cfg.model.data_preprocessor.resolution = args.resolution
        out.mkdir(parents=True, exist_ok=True)
        meta = safe_load(checkpoint).get('meta', {}).get('dataset_meta')
        with whole_file(out / 'student.pth') as file:
            torch.save(dict(meta=dict(dataset_meta=meta) if meta else {}, state_dict=network.cpu().state_dict()), file)
        student_config(cfg, student).dump(out / 'student.py')
    print(printable(f'wrote {out / "student.py"} and {out / "student.pth"}'))


if __name__ == '__main__':
    main()
