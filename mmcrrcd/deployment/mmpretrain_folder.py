"""A student as a config and a checkpoint of mmpretrain."""
from pathlib import Path

from mmengine.config import Config
from torch import nn

from mmcrrcd.config import preprocessor_of, short_types
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.data import test_data
from mmcrrcd.files import write_whole
from mmcrrcd.torch_file import safe_load, save_whole

FILES = ('student.py', 'student.pth')


def student_settings(cfg: Config) -> dict:
    """Settings of the student of a training's config, without what only training needs."""
    if 'student' not in cfg.model:
        raise InputError(f'the model of {cfg.filename} has no student')
    settings = short_types(cfg.model.student.to_dict())
    settings.pop('train_cfg', None)                      # Mixup and its like
    return settings


def folder_config(cfg: Config, view: dict) -> Config:
    """The config for mmpretrain; its test data are the training's, or a folder of images where those were arrays.

    Args:
        cfg: the training's.
        view: settings of the :class:`StudentView`, which is in the pipeline where the student's images are made from others.
    """
    dataset = short_types(test_data(cfg).to_dict())
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or cfg.train_dataloader
    preprocessor = preprocessor_of(cfg)
    preprocessor = short_types(preprocessor.to_dict()) if preprocessor else dict(type='ClsDataPreprocessor')
    steps = dataset.get('pipeline', [])
    low = preprocessor.get('resolution') or any(step['type'] == 'mmcrrcd.ResolutionPair' for step in steps)
    if preprocessor['type'] == 'mmcrrcd.PairPreprocessor':
        preprocessor = dict(type='ClsDataPreprocessor', mean=preprocessor['mean'], std=preprocessor['std'],
                            to_rgb=preprocessor.get('to_rgb', False))
    if all(step['type'] != 'LoadImageFromFile' for step in steps):       # arrays of RGB; files are read as BGR
        steps = [dict(type='LoadImageFromFile'), *steps]
        dataset = dict(type='CustomDataset', data_root='data/test')
        preprocessor['to_rgb'] = not preprocessor.get('to_rgb', False)
    if low:
        steps = [step for step in steps if step['type'] == 'LoadImageFromFile'] + [dict(type='mmcrrcd.StudentView', **view)]
    dataset['pipeline'] = [*(step for step in steps if step['type'] != 'PackInputs'), dict(type='PackInputs')]
    return Config(dict(
        default_scope='mmpretrain', model=student_settings(cfg), data_preprocessor=preprocessor, image_size=view['image_size'],
        test_dataloader=dict(batch_size=loader.batch_size, num_workers=0, dataset=dataset,
                             sampler=dict(type='DefaultSampler', shuffle=False)),
        test_evaluator=dict(type='Accuracy', topk=(1, )), test_cfg=dict()))


def export_folder(network: nn.Module, cfg: Config, view: dict, checkpoint: Path, out: Path) -> tuple[Path, Path]:
    """Writes ``student.py`` and ``student.pth`` into ``out``; they are returned.

    For networks of mmpretrain the result needs nothing of this package, unless the student saw a downsampled resolution. Then
    the pipeline makes the student's images with ``mmcrrcd.StudentView``. A backbone of this package stays one; mmengine finds
    it by its name, ``mmcrrcd.ResNetCIFAR``, where mmcrrcd is installed.

    Args:
        network: the student with its weights.
        cfg, checkpoint: of its training.
        view: settings of the :class:`StudentView`.
    """
    config = folder_config(cfg, view)
    meta = (safe_load(checkpoint).get('meta') or {}).get('dataset_meta')
    out.mkdir(parents=True, exist_ok=True)
    files = tuple(out / name for name in FILES)
    weights = {key: value.cpu() for key, value in network.state_dict().items()}
    save_whole(dict(meta=dict(dataset_meta=meta) if meta else {}, state_dict=weights), files[1])
    write_whole(files[0], config.pretty_text)
    return files
