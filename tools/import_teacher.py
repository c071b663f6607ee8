"""Take a CIFAR network that others trained and published as a teacher: ``python tools/import_teacher.py FILE CONFIG``.

For the names that RepDistiller gives the layers of its ResNets, wide ResNets and VGGs, pytorch-cifar-models those of its
ResNets, and densenet-pytorch those of its DenseNets. The network is tested first, then put where the students of CONFIG, the
teacher's, look for it.
"""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse
import hashlib
import json
import re
from pathlib import Path

from mmcrrcd.checkpoint import check_weights, fitted, read_checkpoint, weights_in
from mmcrrcd.command_line import one_line_errors
from mmcrrcd.config import kind, read_config
from mmcrrcd.engine.launch import build_runner, prepare_processes
from mmcrrcd.engine.work_dir import one_training, trainings_files
from mmcrrcd.errors import InputError
from mmcrrcd.files import write_whole
from mmcrrcd.torch_file import save_whole

# Their names and ours. Stages are counted from 1 there and from 0 here; a stage of VGG begins with its pooling here, not there.
RULES = dict(
    ResNetCIFAR={r'^conv1\.': 'backbone.stem.0.', r'^bn1\.': 'backbone.stem.1.', r'^layer(\d)\.': 'backbone.stages.{0}.',
                 r'^fc\.': 'head.fc.'},
    WRNCIFAR={r'^conv1\.': 'backbone.stem.', r'^bn1\.': 'backbone.last.0.', r'^block(\d)\.layer\.': 'backbone.stages.{0}.',
              r'\.convShortcut\.': '.shortcut.', r'^fc\.': 'head.fc.'},
    VGGCIFAR={r'^block0\.': 'backbone.stem.', r'^block(\d)\.(\d)\.': 'backbone.stages.{0}.{1}.', r'^classifier\.': 'head.fc.'},
    DenseNetCIFAR={r'^conv1\.': 'backbone.stem.', r'^bn1\.': 'backbone.last.0.',
                   r'^block(\d)\.layer\.': 'backbone.stages.{0}.layers.', r'^trans1\.': 'backbone.stages.1.transition.',
                   r'^trans2\.': 'backbone.stages.2.transition.', r'^fc\.': 'head.fc.'})


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Take a CIFAR network that others trained as a teacher.')
    parser.add_argument('file', help='their checkpoint, e.g. resnet56_vanilla/ckpt_epoch_240.pth')
    parser.add_argument('config', help="the teacher's config, e.g. configs/teachers/resnet56_cifar100.py")
    parser.add_argument('--work-dir', help='where it goes (default: work_dirs/<name of the config>)')
    return parser.parse_args(argv)


def renamed(key: str, rules: dict[str, str]) -> str:
    """Their name of a weight as ours."""
    for theirs, ours in rules.items():
        if found := re.search(theirs, key):
            numbers = [int(number) + shift for number, shift in zip(found.groups(), (-1, 1))]
            key = key[:found.start()] + ours.format(*numbers) + key[found.end():]
    return key


def converted(file: Path, backbone: str) -> dict:
    """A checkpoint of this package with the weights in ``file``, one of theirs.

    Raises:
        InputError: no network of theirs has such a backbone, or the file is not a checkpoint that can be loaded safely.
    """
    if backbone not in RULES:
        raise InputError(f'{backbone} has no counterpart among the networks published for CIFAR: {", ".join(RULES)} have')
    if not file.is_file():
        raise FileNotFoundError(f'there is no checkpoint {file}')
    theirs = read_checkpoint(file)
    weights = weights_in(theirs, file)
    first = {key.partition('.')[0] for key in weights}
    if len(first) == 1 and not first & weights.keys():   # a network within another module, Lightning's say
        weights = {key.partition('.')[2]: value for key, value in weights.items()}
    meta = dict(source=file.name, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    if isinstance(theirs.get('epoch'), int):
        meta['epoch'] = theirs['epoch']
    return dict(state_dict={renamed(str(key), RULES[backbone]): value for key, value in weights.items()}, meta=meta)


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
        write_whole(folder / 'evaluated.json', json.dumps(result) + '\n')
        write_whole(folder / 'last_checkpoint', str(folder / 'imported.pth'))
        print(f'{folder}: {accuracy:.2f} % of the test images')


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        import_teacher(args)


if __name__ == '__main__':
    main()
