"""Train a model from a config: ``python tools/train.py configs/crrcd/resnet56_resnet20_cifar100.py``."""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import barrier

from mmcrrcd.checkpoint import UnfinishedTraining, find_checkpoint, read_network
from mmcrrcd.command_line import Options, add_options, merge_options, need_sections, one_line_errors
from mmcrrcd.config import read_config
from mmcrrcd.datasets.transforms.resolution_pair import sides
from mmcrrcd.engine.build_cache import VIEWS, teacher_is_there, views_of_text
from mmcrrcd.engine.launch import build_runner, prepare_processes
from mmcrrcd.engine.own_data import default_work_dir
from mmcrrcd.engine.settings import check_pairs, check_settings
from mmcrrcd.engine.teacher import refuse_small, teacher_config
from mmcrrcd.engine.work_dir import OverwriteHook, is_first_process, one_training, refuse_another, was_killed
from mmcrrcd.errors import InputError
from mmcrrcd.visualization.backends import BACKENDS, add_backends


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='where logs and checkpoints go (default: its work_dir, or work_dirs/<its name>)')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from CHECKPOINT, a file or a work directory, or from the last one in the work directory')
    parser.add_argument('--overwrite', action='store_true',
                        help='start anew in the folder of an earlier training, whose checkpoints are removed')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast, on CPU and GPU')
    parser.add_argument('--cuda-graphs', action='store_true',
                        help='each step as a CUDA graph: on a GPU steps of small networks take a fraction of the time')
    parser.add_argument('--train-teacher', nargs='*', action=Options, metavar='KEY=VALUE',
                        help='train the teacher first where its checkpoint is missing, by its own config with these settings; '
                             "--cfg-options are the student's, but for data_root")
    parser.add_argument('--cache-teacher', nargs='?', type=views_of_text, const=VIEWS, metavar='VIEWS',
                        help="read the teacher's answers from disk, computed first where they are missing: so many "
                             f'augmentations of each image, or all (default: {VIEWS})')
    parser.add_argument('--vis', nargs='+', choices=BACKENDS, default=[],
                        help='watch the numbers of the log there, too; each needs the package of its name')
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help="scale the learning rate with the batch of all processes, by the config's auto_scale_lr")
    parser.add_argument('--no-pin-memory', action='store_true', help='pin_memory=False in all data loaders')
    parser.add_argument('--no-persistent-workers', action='store_true', help='persistent_workers=False in all data loaders')
    add_options(parser, 'train_cfg.max_epochs=30 param_scheduler.milestones="[18,24,27]"', launcher=True)
    return parser.parse_args(argv)


def load_config(path: str | Path, args: argparse.Namespace) -> Config:
    """The config at ``path``, of student or teacher, with what the command line says of both."""
    cfg = read_config(path)
    need_sections(cfg, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    if args.amp:
        cfg.optim_wrapper.type = 'mmcrrcd.BF16OptimWrapper'
    if args.cuda_graphs:
        if 'max_epochs' not in cfg.train_cfg:
            raise InputError(f'--cuda-graphs is for training by epochs, and train_cfg of {path} is {dict(cfg.train_cfg)}')
        cfg.train_cfg.pop('by_epoch', None)
        cfg.train_cfg.type = 'mmcrrcd.GraphedTrainLoop'
    if args.no_validate:
        cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    if args.auto_scale_lr:
        if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
            raise InputError(f'--auto-scale-lr needs the batch that the learning rate of {path} is for: '
                             'auto_scale_lr = dict(base_batch_size=...)')
        cfg.auto_scale_lr.enable = True
    for name in ('pin_memory', 'persistent_workers'):
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if getattr(args, f'no_{name}') and cfg.get(loader):
                cfg[loader][name] = False
    return cfg


def student_config(args: argparse.Namespace) -> Config:
    cfg = load_config(args.config, args)
    merge_options(cfg, args.cfg_options)
    cfg.work_dir = args.work_dir or str(default_work_dir(cfg, args.config))
    add_backends(cfg, args.vis)
    if args.cache_teacher:
        cfg.model.teacher_cache = {**(cfg.model.get('teacher_cache') or {}), 'views': args.cache_teacher}
    if args.resume and args.overwrite:
        raise InputError('--resume goes on with a training, --overwrite starts it anew: give one of them')
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
        if cfg.load_from and Path(cfg.load_from).is_dir():               # the last one in it
            cfg.load_from = str(find_checkpoint(cfg.load_from))
    check_settings(cfg)
    check_pairs(cfg, 'val_dataloader')
    return cfg


def train_teacher(cfg: Config, args: argparse.Namespace) -> None:
    """Train the teacher of ``cfg`` where ``cfg`` looks for it; an interrupted training goes on."""
    path, config = Path(cfg.model.teacher_checkpoint), teacher_config(cfg)
    if config is None:
        raise InputError(f'{cfg.filename} names no teacher_config, so its teacher cannot be trained from here')
    if path.suffix:
        raise InputError(f'teacher_checkpoint = {str(path)!r} is a file; --train-teacher writes a work directory, name that')
    teacher = load_config(config, args)
    merge_options(teacher, (dict(data_root=cfg.data_root) if cfg.get('data_root') else {}) | args.train_teacher,
                  '--train-teacher')
    teacher.work_dir, teacher.resume, teacher.launcher = str(path), teacher_is_there(cfg.model), cfg.launcher
    teacher.model_wrapper_cfg = cfg.get('model_wrapper_cfg')
    add_backends(teacher, args.vis)
    with one_training(path, args.launcher):
        runner = build_runner(teacher)
        runner.logger.info(f'first the teacher, by {config}; then the student')
        runner.train()
    barrier()                                            # the first process writes the checkpoint that all read


def need_teacher(cfg: Config, args: argparse.Namespace) -> None:
    """Make sure that the teacher's checkpoint is there before anything else is built."""
    path = cfg.model.get('teacher_checkpoint')
    if (cfg.model.get('teacher_cache') or {}).get('folder') and not teacher_is_there(cfg.model):
        return                                           # its answers may be there, which is looked at later
    if args.train_teacher is not None and not path:
        raise InputError(f'--train-teacher: {cfg.filename} has no model.teacher_checkpoint, so there is none to train')
    try:
        if path:
            refuse_small(path, min(sides(cfg.model.get('input_size', 32))))
            read_network(path)
            if args.train_teacher is not None and was_killed(path):
                raise UnfinishedTraining(f'{path}: its training was killed')
    except (FileNotFoundError, UnfinishedTraining) as error:
        if args.train_teacher is not None:
            return train_teacher(cfg, args)
        config = teacher_config(cfg)
        how = '' if config is None else f'; train it with: python tools/train.py {config}  (or add --train-teacher)'
        raise InputError(f'the teacher is missing: {error}{how}') from error
    if args.train_teacher:
        raise InputError(f'--train-teacher {next(iter(args.train_teacher))}=...: the teacher in {path} is trained already, so '
                         'its settings change nothing: leave them out, or move that folder away')


def train(cfg: Config, overwrite: bool) -> None:
    """Trains the model of ``cfg``; nothing holds it afterwards, as the end of several processes wants it."""
    runner = build_runner(cfg)
    if overwrite:
        runner.register_hook(OverwriteHook())
    runner.train()


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        cfg = student_config(args)
        anew = not args.resume and not args.overwrite
        if anew and is_first_process(args.launcher):     # before a teacher is trained
            refuse_another(cfg.work_dir)
        prepare_processes(cfg, args.launcher)
        need_teacher(cfg, args)
        with one_training(cfg.work_dir, args.launcher, anew):
            train(cfg, args.overwrite)


if __name__ == '__main__':
    main()
