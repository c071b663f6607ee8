"""Take a CIFAR network that others trained and published as a teacher: ``python tools/import_teacher.py FILE CONFIG``.

For the names that RepDistiller gives the layers of its ResNets, wide ResNets and VGGs, pytorch-cifar-models those of its
ResNets, and densenet-pytorch those of its DenseNets. The network is tested first, then put where the students of CONFIG, the
teacher's, look for it.
"""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse
from pathlib import Path

from mmcrrcd.checkpoint import check_weights, fitted
from mmcrrcd.command_line import one_line_errors
from mmcrrcd.config import kind, read_config
from mmcrrcd.engine.launch import build_runner, prepare_processes
from mmcrrcd.engine.work_dir import one_training, trainings_files
from mmcrrcd.errors import InputError
from mmcrrcd.files import write_json, write_whole
from mmcrrcd.models.teachers.published import converted
from mmcrrcd.torch_file import save_whole


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Take a CIFAR network that others trained as a teacher.')
    parser.add_argument('file', help='their checkpoint, e.g. resnet56_vanilla/ckpt_epoch_240.pth')
    parser.add_argument('config', help="the teacher's config, e.g. configs/teachers/resnet56_cifar100.py")
    parser.add_argument('--work-dir', help='where it goes (default: work_dirs/<name of the config>)')
    return parser.parse_args(argv)


def import_teacher(args: argparse.Namespace) -> None:
    cfg = read_config(args.config)
    if 'student' not in cfg.model or 'teacher' in cfg.model or cfg.model.data_preprocessor.get('resolution'):
        raise InputError(f'{args.config} is not the config of a teacher, as those of configs/teachers are')
    folder = Path(args.work_dir or f'work_dirs/{Path(args.config).stem}')
    checkpoint = converted(Path(args.file), kind(cfg.model.student.backbone))
    with one_training(folder):
        if trainings_files(folder):
            raise InputError(f'{folder} has a training already: move it away, or name another --work-dir')
        cfg.work_dir = str(folder / 'test')
        prepare_processes(cfg, 'none')
        runner = build_runner(cfg)
        student = runner.model.student
        checkpoint['state_dict'] = fitted(checkpoint['state_dict'], student.state_dict())
        check_weights(checkpoint['state_dict'], student.state_dict(), args.file, 'student')
        student.load_state_dict(checkpoint['state_dict'])
        accuracy = runner.test()['accuracy/top1']
        save_whole(checkpoint, folder / 'imported.pth')
        result = {'step': checkpoint['meta'].get('epoch'), 'accuracy/top1': accuracy}
        write_json(folder / 'evaluated.json', result)
        write_whole(folder / 'last_checkpoint', str(folder / 'imported.pth'))
        print(f'{folder}: {accuracy:.2f} % of the test images')


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        import_teacher(args)


if __name__ == '__main__':
    main()
