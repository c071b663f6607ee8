"""Test the student of a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``; a work directory is its last checkpoint."""
import argparse
import json
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.model import is_model_wrapper

from mmcrrcd.checkpoint import find_checkpoint, load_network
from mmcrrcd.config import read_config
from mmcrrcd.engine.launch import build_runner, check_output, one_line_errors, prepare_processes
from mmcrrcd.errors import InputError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test the student of a checkpoint.')
    parser.add_argument('config', help='config of the training')
    parser.add_argument('checkpoint', help='file or work directory: of a training, of an exported student, of mmpretrain')
    parser.add_argument('--work-dir', help='where the log goes (default: work_dirs/<name of the config>/test)')
    parser.add_argument('--out', metavar='FILE', help='write the metrics to this JSON file')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast, on CPU and GPU')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override settings, e.g. model.data_preprocessor.resolution=16')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def load_config(args: argparse.Namespace) -> Config:
    """The config of the test: the student-only baseline, without what only training needs."""
    cfg = read_config(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    missing = [key for key in ('test_dataloader', 'test_evaluator', 'test_cfg') if cfg.get(key) is None]
    if missing:
        raise InputError(f'{args.config} has no {missing[0]}; for face networks see tools/verify_faces.py')
    cfg.work_dir = args.work_dir or f'work_dirs/{Path(args.config).stem}/test'
    if 'student' in cfg.model:
        model = dict(type='mmcrrcd.Distiller', student=cfg.model.student)
        if 'data_preprocessor' in cfg.model:
            model['data_preprocessor'] = cfg.model.data_preprocessor
        cfg.model = model
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'val_dataloader', 'val_cfg',
                'val_evaluator', 'custom_hooks', 'load_from'):
        cfg[key] = None
    cfg.resume = False
    return cfg


def test(args: argparse.Namespace) -> None:
    """Tests the network, prints the accuracies and writes them into ``args.out``."""
    checkpoint = find_checkpoint(args.checkpoint)
    cfg = load_config(args)
    prepare_processes(cfg, args.launcher)
    if args.out:
        check_output(args.out)
    runner = build_runner(cfg)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    load_network(getattr(model, 'student', model), checkpoint, 'student')
    if args.amp:
        model.forward = torch.autocast(get_device(), torch.bfloat16)(model.forward)
    metrics = runner.test()
    if is_main_process():
        print(*(f'{name} {value:.2f}' for name, value in metrics.items()))
        if args.out:
            Path(args.out).write_text(json.dumps(metrics, indent=2) + '\n')


def main() -> None:
    args = parse_args()
    with one_line_errors():
        test(args)


if __name__ == '__main__':
    main()
