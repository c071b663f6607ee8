"""Files with code in them: whatever is read, nothing of it is run, nothing fetched, no file followed out of its folder.

Code leaves a mark, by the files ``canary`` and ``precious``; so do programs that are started, and connections.
"""
import io
import json
import os
import pickle
import random
import shutil
import socket
import struct
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from test_datasets import test_verification_sets

from experiments.runs import check_same
from mmcrrcd.datasets import CIFAR10Arrays, FaceFolder, SVHNArrays, bin_pairs, read_tinyface
from mmcrrcd.datasets.read_image import read_image
from mmcrrcd.inference import load_student
from tools import cache_teacher, export_student, import_teacher, predict
from tools import test as test_tool
from tools import train as train_tool

from .child import new_folder, run
from .files import answers, exported, made, trained
from .kills import finished_training

TOUCH = 'touch canary'
PROGRAM = "open('canary', 'w')"
PROGRAMS = ('gs', 'gswin64c', 'curl', 'wget', 'ffmpeg', 'convert', 'sh', 'bash', 'touch')


class Calls:
    """A pickle of it calls ``function(*args)``; with ``state`` more is done to what that returns."""

    def __init__(self, function, *args, more: tuple = ()):
        self.what = (function, args, *more)

    def __reduce__(self):
        return self.what


def pickles(value: dict) -> dict[str, bytes]:
    """Pickles of a dict in which some value runs code; by name."""
    calls = {
        'os.system': Calls(os.system, TOUCH), 'eval': Calls(eval, PROGRAM), 'exec': Calls(exec, PROGRAM),
        'open': Calls(open, 'canary', 'w'), 'import': Calls(__import__, 'planted'), 'numpy.load': Calls(np.load, 'evil.npy'),
        'torch.load': Calls(torch.load, 'evil.pth'), 'rmtree': Calls(shutil.rmtree, 'precious'),
        'remove': Calls(os.remove, 'precious/file'), 'getattr': Calls(getattr, torch.Tensor, '__class__'),
        'config': Calls(Config.fromstring, PROGRAM, '.py'), 'state': Calls(dict, more=(dict(a=1), )),
        'socket': Calls(socket.create_connection, ('127.0.0.1', 9)), 'items': Calls(list, more=(None, iter([1, 2]))),
    }
    found = {}
    for name, call in calls.items():
        for protocol in (0, 2, 4):
            found[f'{name}, protocol {protocol}'] = pickle.dumps(value | dict(evil=call), protocol)
    found['by INST'] = b"(dp0\nS'evil'\n(S'" + TOUCH.encode() + b"'\nios\nsystem\ns."
    found['by OBJ'] = b"}X\x04\x00\x00\x00evil(cos\nsystem\nX\x0c\x00\x00\x00" + TOUCH.encode() + b"os."
    found['by EXT'] = b'}X\x04\x00\x00\x00evil\x82\x01s.'
    found['a planted module'] = b'}X\x04\x00\x00\x00evilcplanted\nLate\n)\x81s.'
    found['a dotted name'] = b"\x80\x04}\x8c\x04evil\x8c\x05torch\x8c\x14serialization.os.sys\x93s."
    return found


def as_zip(content: bytes, twice: bool = False, more: bytes | None = None) -> bytes:
    """A checkpoint whose pickle is this one; ``twice``: behind a harmless one of its name; ``more``: a further pickle."""
    file = io.BytesIO()
    harmless = io.BytesIO()
    torch.save(dict(state_dict={}), harmless)
    with zipfile.ZipFile(harmless) as old, zipfile.ZipFile(file, 'w') as new:
        for name in old.namelist():
            if not name.endswith('data.pkl') or twice:
                new.writestr(name, old.read(name))
            if name.endswith('data.pkl'):
                new.writestr(name, content)
                if more is not None:
                    new.writestr(name.replace('data.pkl', 'more.pkl'), more)
    return file.getvalue()


def as_legacy(content: bytes) -> bytes:
    """The same in PyTorch's older form: number, version, machine, content, keys, each a pickle."""
    head = [pickle.dumps(each, 2) for each in (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION,
                                               dict(protocol_version=1001, little_endian=True, type_sizes={}))]
    return b''.join([*head, content, pickle.dumps([], 2)])


def npy(content: bytes) -> bytes:
    """An array of objects, by this pickle."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, dict(descr='|O', fortran_order=False, shape=(2, 24, 32)))
    return file.getvalue() + content


def watched(read: Callable[[], object]) -> object:
    """Reads where every program that could be started leaves a mark, and every connection."""
    programs = Path('programs').resolve()
    here = Path.cwd()
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).write_text(f'#!/bin/dash\necho {name} > {here}/canary\n')
        (programs / name).chmod(0o755)
    os.environ['PATH'] = str(programs)

    def connected(*_):
        Path(here, 'canary').write_text('a connection')
        raise OSError('no network')

    socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = connected
    return read()


def read_evil(base: Path, plant: Callable[[Path], None], read: Callable[[], object], root: Path, printed: bool = False
              ) -> str | None:
    """What is wrong after files with code were read."""
    with new_folder(root) as folder:
        shutil.copytree(base, folder, dirs_exist_ok=True, symlinks=True)
        (folder / 'precious').mkdir()
        (folder / 'precious' / 'file').write_text('mine')
        (folder / 'planted.py').write_text(PROGRAM)
        (folder / 'evil.pth').write_bytes(as_zip(pickle.dumps(Calls(os.system, TOUCH), 2)))
        (folder / 'evil.npy').write_bytes(npy(pickle.dumps(Calls(os.system, TOUCH))))
        plant(folder)
        end = run(partial(watched, read), folder)
        if (folder / 'canary').exists():
            return f'CODE HAS RUN: {(folder / "canary").read_text() or "by Python or a shell"}'
        if (folder / 'precious').is_symlink() or not (folder / 'precious/file').is_file() or (
                folder / 'precious/file').read_text() != 'mine' or len(list((folder / 'precious').iterdir())) != 1:
            return 'ANOTHER FILE WAS CHANGED: a link was followed'
        if printed and any(not (each.isprintable() or each in '\n\r') for each in end.output + end.said):
            return 'a control character reaches the terminal'
        return end.problem('line', 'done')


def write(name: str, content: bytes | str) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return plant


def linked(name: str, target: str = 'precious/file') -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.symlink_to(folder / target)

    return plant


def cases(root: Path, seed: int) -> Iterator[tuple[str, str, Callable[[], str | None]]]:
    """(kind, name, case) of all files with code."""
    draw = random.Random(f'{seed} code')
    base = made(root, 'exported', exported)

    def case(plant: Callable[[Path], None], read: Callable[[], object], where: Path = base, **options):
        return partial(read_evil, where, plant, read, root, **options)

    # Pickles in checkpoints, by every way in which a checkpoint is read.
    pretrained = ('model.student.backbone.init_cfg.type=Pretrained', 'model.student.backbone.init_cfg.checkpoint=bad.pth')
    ways = {
        '--resume': ('out/epoch_1.pth', partial(trained, '--resume')),
        '--resume FILE': ('bad.pth', partial(trained, '--resume', 'bad.pth')),
        'load_from': ('bad.pth', partial(trained, '--overwrite', '--cfg-options', 'load_from=bad.pth')),
        'teacher_checkpoint': ('teacher.pth', partial(trained, '--overwrite')),
        'Pretrained': ('bad.pth', partial(trained, '--overwrite', '--cfg-options', *pretrained)),
        'a test': ('out/epoch_1.pth', partial(test_tool.main, ['run.py', 'out'])),
        'an export': ('out/epoch_1.pth', partial(export_student.main, ['out', '--overwrite'])),
        'predictions': ('out/epoch_1.pth', partial(answers, 'out')),
        'an exported student': ('student/student.pth', partial(load_student, 'student')),
        'an import': ('bad.pth', lambda: import_teacher.import_teacher(Namespace(
            file='bad.pth', config='teacher.py', work_dir='imported'))),
    }
    teacher_py = Path(base, 'run.py').read_text()
    (base / 'teacher.py').write_text(f'{teacher_py}\nmodel = dict(type="mmcrrcd.Distiller", student=model["student"], '
                                     'data_preprocessor=model["data_preprocessor"])\n'
                                     'model["data_preprocessor"]["resolution"] = None\n')
    state = dict(state_dict={}, meta=dict(epoch=1, iter=3))
    contents = pickles(state)
    for way, (file, read) in ways.items():
        for name in contents if way in ('--resume', 'predictions') else draw.sample(sorted(contents), 8):
            form, make = draw.choice([('zip', as_zip), ('older form', as_legacy)])
            yield 'pickles in checkpoints', f'{way}: {name}, {form}', case(write(file, make(contents[name])), read)
        evil, harmless = contents['os.system, protocol 2'], pickle.dumps(state, 2)
        for name, content in (('two pickles of one name', as_zip(evil, twice=True)), ('a bare pickle', evil),
                              ('a second pickle', as_zip(harmless, more=evil))):
            yield 'pickles in checkpoints', f'{way}: {name}', case(write(file, content), read)

    # Programs where names and values are expected.
    def with_meta(folder: Path) -> None:
        file = folder / 'out' / 'epoch_1.pth'
        checkpoint = torch.load(file, weights_only=True)
        for name in ('config', 'cfg', 'settings'):
            checkpoint['meta'][name] = PROGRAM
        torch.save(checkpoint, file)

    yield 'programs in what is data', 'the config in a checkpoint, --resume', case(with_meta, partial(
        trained, '--resume', '--cfg-options', 'train_cfg.max_epochs=2'))
    yield 'programs in what is data', 'the config in a checkpoint, an export', case(with_meta, partial(
        export_student.main, ['out', '--overwrite']))
    programs = {
        'a statement': PROGRAM, 'an import': 'import planted', 'a value': f'a = {PROGRAM}',
        'in a dict': f'a = dict(b=[{PROGRAM}])',
        'a base': "_base_ = ['planted.py']",
        'imports': "custom_imports = dict(imports=['planted'], allow_failed_imports=False)",
        'read_base': 'from mmengine.config import read_base\nwith read_base():\n    from .planted import *',
        'f-string': f"a = f'{{{PROGRAM}}}'", 'a comprehension': f'a = [{PROGRAM} for _ in (1,)]',
        'lambda': f'a = (lambda: {PROGRAM})()',
        'type os.system': "model['student']['backbone'] = dict(type='os.system', command='touch canary')",
        'type a module': "default_scope = 'planted'",
        'type eval': "evil = dict(type='builtins.eval', source=\"open('canary', 'w')\")",
        'a decorator': f'@{PROGRAM}\ndef f(): pass', 'a default': f'def f(a={PROGRAM}): pass',
        'a class': f'class A:\n    {PROGRAM}',
        'base variable': "a = '{{_base_.evil}}'", 'an environment variable': "a = '{{$HOME:x}}'",
    }
    for name, text in programs.items():
        for way, file, read in (('predictions', 'out/run.py', partial(answers, 'out')),
                                ('an export', 'out/run.py', partial(export_student.main, ['out', '--overwrite'])),
                                ('an exported student', 'student/student.py', partial(answers, 'student'))):
            content = (base / file).read_text()
            yield 'programs in what is data', f'{way}: {name}', case(write(file, f'{content}\n{text}\n'), read)
    for name, text in programs.items():
        record = json.dumps(dict(config=f'{(base / "run.py").read_text()}\n{text}\n'))
        yield 'programs in what is data', f'a result: {name}', case(write('r.json', record), lambda: check_same(
            Config.fromfile('run.py'), json.loads(Path('r.json').read_text())['config'], Path('r.json')))

    # Configs in formats that mmengine would run.
    tagged = {'a.yaml': '!!python/object/apply:os.system ["touch canary"]',
              'b.yaml': 'a: !!python/object/new:os.system [touch canary]',
              'c.yml': 'a: !!python/module:planted', 'd.json': json.dumps(dict(model=dict(type='os.system', command=TOUCH))),
              'e.json': json.dumps(dict(_base_='planted.py')),
              'f.json': json.dumps(dict(custom_imports=dict(imports=['planted'])))}
    for name, text in tagged.items():
        for way, read in (('train', partial(train_tool.main, [name])), ('test', partial(test_tool.main, [name, 'out'])),
                          ('export', partial(export_student.main, ['out', '--config', name, '--overwrite'])),
                          ('predict', partial(predict.main, ['images', name, 'out'])),
                          ('cache', partial(cache_teacher.main, [name]))):
            yield 'YAML and JSON', f'{way}: {name}', case(write(name, text), read)
    for name in ('list.pkl', 'list.yaml', 'list.pickle'):
        content = pickle.dumps(Calls(os.system, TOUCH)) if 'p' in name.split('.')[1][:1] else tagged['a.yaml']
        config = (base / 'out' / 'run.py').read_text()
        config += f"\ntest_dataloader['dataset'] = dict(type='CustomDataset', ann_file='{name}', pipeline=[])\n"
        yield 'YAML and JSON', f'an export: {name}', case(
            lambda folder, name=name, content=content: write(name, content)(folder), partial(
                export_student.main, ['out', '--overwrite']))

    # Pickles and arrays of data sets and caches.
    def cached(base: Path) -> None:
        finished_training(base)
        cache_teacher.main(['run.py', '--views', '2', '--folder', 'answers'])

    cache = made(root, 'cached', cached)
    data = pickles({'data': [], 'labels': [], 'label_names': []})
    for name in draw.sample(sorted(data), 12):
        plant = partial(planted_cifar, data[name])
        yield 'pickles of data sets', f'CIFAR: {name}', case(plant, lambda: len(CIFAR10Arrays('.', 'test', download=False)))
        yield 'pickles of data sets', f'pairs: {name}', case(write('set.bin', data[name]), lambda: len(
            bin_pairs('set.bin', 16)))
    arrays = npy(pickle.dumps(Calls(os.system, TOUCH)))
    from_cache = partial(trained, '--overwrite', '--cfg-options', 'model.teacher_cache.folder=answers')
    for name in ('embedding', 'logits', 'classifier_weight', 'classifier_bias'):
        yield 'arrays of objects', f"a teacher's {name}", case(write(f'answers/{name}.npy', arrays), from_cache, cache)
    yield 'arrays of objects', 'decoded images', case(planted_faces, lambda: len(FaceFolder('faces', 16)))
    for name in ('X', 'y'):
        yield 'arrays of objects', f'SVHN {name}', case(write('test_32x32.mat', arrays), lambda: len(
            SVHNArrays('.', 'test', part=True, download=False)))
    yield 'arrays of objects', 'TinyFace', case(write('Testing_Set/probe_img_ID_pairs.mat', arrays), lambda: read_tinyface('.'))

    # Images that are programs, by every name.
    eps = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(canary) (w) file closefile\n%%EOF\n'
    pictures = {'EPS': eps, 'PostScript': b'%!PS\n(canary) (w) file closefile\n',
                'SVG': b'<svg onload="x"><script>1</script></svg>',
                'shell': b'#!/bin/sh\ntouch canary\n',
                'EPS in DOS': b'\xc5\xd0\xd3\xc6' + struct.pack('<II', 30, len(eps)) + bytes(18) + eps,
                'PDF': b'%PDF-1.4\n1 0 obj<</S/JavaScript/JS(x)>>endobj\n'}
    for name, content in pictures.items():
        for suffix in ('png', 'jpg', 'tif'):
            yield 'images that are programs', f'{name} as {suffix}', case(
                write(f'images/a.{suffix}', content), lambda suffix=suffix: read_image(f'images/a.{suffix}').size)
        yield 'images that are programs', f'{name}, predictions', case(
            write('images/class0/000.png', content), partial(answers, 'out'))

    # Addresses, and files that lead elsewhere.
    for address in ('https://127.0.0.1:9/a.pth', 'http://127.0.0.1/x.pth', 'torchvision://resnet18', 's3://a/b.pth',
                    '../evil.pth', 'file:///etc/passwd', 'open-mmlab://resnet50', '|touch canary', '$(touch canary)',
                    '`touch canary`'):
        yield 'addresses and commands', f'last_checkpoint: {address}', case(write('out/last_checkpoint', address), partial(
            trained, '--resume'))
        for way, args in (('--resume', ('--resume', address)),
                          ('load_from', ('--overwrite', '--cfg-options', f'load_from={address}')),
                          ('teacher_checkpoint', ('--overwrite', '--cfg-options', f'model.teacher_checkpoint={address}'))):
            yield 'addresses and commands', f'{way}: {address}', case(lambda folder: None, partial(trained, *args))
        yield 'addresses and commands', f'predictions: {address}', case(lambda folder: None, partial(answers, address))

    more_epochs = partial(trained, '--resume', '--cfg-options', 'train_cfg.max_epochs=2')
    for name in ('epoch_1.pth.part', 'epoch_2.pth.part', 'epoch_2.pth', 'last_checkpoint', 'last_checkpoint.part',
                 '.training.lock', '.training.by', '.training.by.part', 'run.py',
                 'best_accuracy_top1_epoch_2.pth', 'best_accuracy_top1_epoch_2.pth.part'):
        yield 'planted links', f'a training: {name}', case(linked(f'out/{name}'), more_epochs)
    for name in ('student.py', 'student.pth', 'student.py.part', 'student.pth.part'):
        yield 'planted links', f'an export: {name}', case(linked(f'student/{name}'), partial(
            export_student.main, ['out', '--out', 'student', '--overwrite']))
    for name in ('new.lock', 'new.part', 'new.part/logits.npy', 'new.part/blocks.txt', 'new.part/head.json'):
        yield 'planted links', f"a teacher's answers: {name}", case(linked(name), partial(
            cache_teacher.main, ['run.py', '--views', '2', '--folder', 'new']), cache)
    yield 'planted links', "a teacher's answers: a folder", case(linked('new.part', 'precious'), partial(
        cache_teacher.main, ['run.py', '--views', '2', '--folder', 'new']), cache)
    for name, read in (('answers.json', partial(answers, 'out')),
                       ('m.json', partial(test_tool.main, ['run.py', 'out', '--out', 'm.json'])),
                       ('all.json', partial(test_tool.main, ['run.py', 'out', '--out', 'all.json', '--out-item', 'pred'])),
                       ('all.npz', partial(test_tool.main, ['run.py', 'out', '--out', 'all.npz', '--out-item', 'pred']))):
        yield 'planted links', f'what is written: {name}.part', case(linked(f'{name}.part'), read)

    # Names that a terminal would obey.
    for name in ('a\x1b[2J.png', 'a\x1b]0;title\x07.png', 'a\u202egnp.png', 'a\nb.png', 'a\r.png', '\x9b31m.png',
                 'a\x08\x08.png'):
        picture = io.BytesIO()
        test_verification_sets.image_of(0).save(picture, 'PNG')
        for what, content in (('an image', picture.getvalue()), ('a damaged one', b'x')):
            yield 'names with control characters', f'{what} {name!r}', case(
                write(f'images/{name}', content), partial(predict.main, ['images', 'out']), printed=True)
        yield 'names with control characters', f'a config {name!r}', case(lambda folder: None, partial(train_tool.main, [name]),
                                                                         printed=True)


def planted_cifar(content: bytes, folder: Path) -> None:
    for name in ('test_batch', 'batches.meta'):
        write(f'cifar-10-batches-py/{name}', content)(folder)


def planted_faces(folder: Path) -> None:
    """Decoded images that are objects: under the name of those that are to be read."""
    (folder / 'faces' / 'ann').mkdir(parents=True)
    test_verification_sets.image_of(0).save(folder / 'faces' / 'ann' / 'a.png')
    FaceFolder(str(folder / 'faces'), 16)
    file, = (folder / 'faces').glob('mmcrrcd*.npy')
    file.write_bytes(npy(pickle.dumps(Calls(os.system, TOUCH))))
