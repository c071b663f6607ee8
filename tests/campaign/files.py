"""Damaged files: each kind of file that this package reads, damaged in every way, as bytes, as texts, and as what they hold.

A reader ends in one line, or reads what the undamaged file holds. Where a format has no checksum it may read other numbers.
"""
import copy
import io
import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tiny
import torch
from scipy.io import savemat
from test_datasets import test_recordio, test_verification_sets

from mmcrrcd.datasets import (CIFAR10Arrays, FaceFolder, RecordFaces, STL10Arrays, SVHNArrays, TinyImageNetArrays, UCCSFaces,
                              bin_pairs, lfw_pairs, read_tinyface, stl10, tiny_imagenet)
from mmcrrcd.datasets.read_image import read_image
from mmcrrcd.safetensors_file import to_safetensors
from tools import cache_teacher, export_student, predict
from tools import test as test_tool
from tools import train as train_tool

from .child import new_folder, run
from .kills import HOOKS, digest, finished_training, state_of_training, write_config

PNG = b'\x89PNG\r\n\x1a\n'


@dataclass
class Reader:
    """Something that reads files.

    ``read``, in the folder with the files, returns what it has read, or a digest of it. ``texts`` are names of those that are
    texts, ``files`` of all others that are damaged; ``same``: is other content always seen? ``number``: of damages in a file.
    """
    name: str
    base: Path
    read: Callable[[], object]
    files: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    same: bool = True
    number: int = 100


def of_bytes(content: bytes, draw: random.Random) -> Iterator[tuple[str, bytes]]:
    """Kinds of damage to the bytes of a file."""
    size = len(content)
    yield 'an empty file', b''
    for share in sorted(draw.random() for _ in range(3)):
        yield 'a file that is cut', content[:int(share * size)]
    yield 'a file that is cut', content[:-1]
    for _ in range(4):
        place = draw.randrange(size)
        yield 'a flipped bit', content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1:]
    for place in (draw.randrange(min(16, size)), draw.randrange(size)):
        yield 'some bytes of noise', content[:place] + draw.randbytes(16) + content[place + 16:]
    place = draw.randrange(size)
    yield 'zeros in a file', content[:place] + bytes(min(512, size - place)) + content[place + 512:]
    yield 'bytes left out', content[:place] + content[place + 7:]
    yield 'a file with more at its end', content + draw.randbytes(100)
    yield 'another format', b'not what you look for\n'
    yield 'another format', PNG + draw.randbytes(64)
    yield 'another format', b'PK\x03\x04' + draw.randbytes(64)
    yield 'another format', pickle.dumps([1, 2, 'x'])
    yield 'noise', draw.randbytes(min(size, 4096))


def of_text(content: bytes, draw: random.Random) -> Iterator[tuple[str, bytes]]:
    """Kinds of damage to the lines of a text."""
    lines = content.splitlines(keepends=True) or [b'']
    i = draw.randrange(len(lines))

    def replaced(line: bytes, place: int = i) -> bytes:
        return b''.join([*lines[:place], line, *lines[place + 1:]])

    words = lines[i].split()
    yield 'an empty file', b''
    yield 'an empty line', replaced(b'\n')
    yield 'a line left out', replaced(b'')
    yield 'a line twice', replaced(2 * lines[i])
    yield 'half a line', replaced(lines[i][:len(lines[i]) // 2])
    yield 'a line without end', replaced(100_000 * b'x' + b'\n')
    yield 'no text', replaced(b'\xff\xfe\x00\n')
    yield 'a zero byte', replaced(b'\0' + lines[i])
    yield 'another digit', replaced('² ³\n'.encode())
    yield 'a control character', replaced(b'\x1b[2J' + lines[i])
    yield 'more words in a line', replaced(lines[i].rstrip() + b' 1 2 3\n')
    yield 'lines in another order', b''.join(draw.sample(lines, len(lines)))
    yield 'a file that is cut', content[:draw.randrange(max(len(content), 1))]
    yield 'a path that leads out', replaced(b'../../../../etc/passwd 0 0 0\n')
    yield 'an absolute path', replaced(b'/etc/passwd\t0\t0\n')
    for number in (b'-1', b'99999999999999999999', b'nan', b'1.5', b'0x10'):
        if words:
            place = draw.randrange(len(words))
            yield 'another number', replaced(b'\t'.join([*words[:place], number, *words[place + 1:]]) + b'\n')


def of_place(file: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Kinds of something else in the place of a file."""
    yield 'a missing file', lambda: None
    yield 'a folder in its place', file.mkdir
    yield 'a pipe in its place', lambda: os.mkfifo(file)
    yield 'a link to nothing', lambda: file.symlink_to('nothing')
    yield 'a link to itself', lambda: file.symlink_to(file.name)
    yield 'a device in its place', lambda: file.symlink_to('/dev/zero')


def of_values(value, draw: random.Random, path: tuple = (), depth: int = 3) -> Iterator[tuple[str, tuple, object]]:
    """(kind, path, wrong value) for the values in nested dicts and lists; MISSING for one that is taken out."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    for key, each in items if len(items) <= 6 else draw.sample(items, 6):
        where = (*path, key)
        yield 'a missing value', where, MISSING
        for wrong in draw.sample([None, 'text', -1, [], {}, [1, 'x'], {'a': 1}, float('nan'), 10 ** 30, True], 3):
            yield 'another kind of value', where, wrong
        if isinstance(each, torch.Tensor):
            yield 'a tensor of another shape', where, each.new_zeros((3, 5))
            yield 'a tensor of another kind', where, torch.zeros(each.shape, dtype=torch.complex64)
            if each.is_floating_point() and each.numel():
                yield 'numbers that are not finite', where, torch.full_like(each, float('nan'))
        if depth and isinstance(each, (dict, list)) and each:
            yield from of_values(each, draw, where, depth - 1)


MISSING = object()


def with_value(content, path: tuple, wrong):
    content = copy.deepcopy(content)
    part = content
    for key in path[:-1]:
        part = part[key]
    if wrong is MISSING:
        del part[path[-1]]
    else:
        part[path[-1]] = wrong
    return content


def as_checkpoint(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def read_damaged(reader: Reader, file: str, damage: Callable[[Path], None], wanted: list, root: Path, same: bool) -> str | None:
    """What is wrong with how a reader ends."""
    with new_folder(root) as folder:
        shutil.copytree(reader.base, folder, dirs_exist_ok=True, symlinks=True)
        damage(folder / file)
        end = run(reader.read, folder)
        if problem := end.problem('line', 'done'):
            return problem
        if end.how == 'done' and same and end.result != wanted[0]:
            return f'it reads something else: {str(end.result)[:100]}'
        if end.how == 'line' and end.said.count(str(folder)) == 0 and not any(
                part in end.said for part in (Path(file).name, Path(file).stem, Path(file).parts[0])):
            return f'the line names no file: {end.said}'
        return None


def put(content: bytes) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        file.write_bytes(content)

    return damage


def instead(make: Callable[[], None], file: Path) -> None:
    file.unlink()
    make()


def cases(root: Path, seed: int) -> Iterator[tuple[str, str, Callable[[], str | None]]]:
    """(kind, name, case) of all damaged files."""
    for reader in readers(root):
        with new_folder(root) as folder:
            shutil.copytree(reader.base, folder, dirs_exist_ok=True, symlinks=True)
            end = run(reader.read, folder)
        if end.how != 'done':
            raise RuntimeError(f'{reader.name}: {end.how}: {end.said}\n{end.output}')
        wanted = [end.result]
        for pattern in (*reader.files, *reader.texts):
            file = sorted(reader.base.glob(pattern))[0].relative_to(reader.base)
            draw, content = random.Random(f'{seed} {reader.name} {file.name}'), (reader.base / file).read_bytes()
            damages = [(kind, put(damaged), '') for kind, damaged in
                       (of_text if pattern in reader.texts else of_bytes)(content, draw) if damaged != content]
            places = [kind for kind, _ in of_place(file)]
            damages += [(kind, partial(other_thing, kind), '') for kind in places]
            if file.suffix == '.pth':
                values = torch.load(reader.base / file, weights_only=True)
                damages += [(kind, partial(put_values, path, wrong), ' ' + '.'.join(map(str, path)) + f' = {short(wrong)}')
                            for kind, path, wrong in of_values(values, draw)]
            if file.suffix == '.json':
                values = json.loads(content)
                damages += [(kind, put(json.dumps(with_value(values, path, wrong)).encode()), ' ' + '.'.join(map(str, path)))
                            for kind, path, wrong in of_values(values, draw) if not isinstance(wrong, torch.Tensor)]
            if len(damages) > reader.number:
                damages = draw.sample(damages, reader.number)
            for i, (kind, damage, what) in enumerate(damages):
                same = reader.same and not what              # other values may be meant, other bytes are not
                yield kind, f'{reader.name}: {file}, {i}{what}', partial(
                    read_damaged, reader, str(file), damage, wanted, root, same)


def short(wrong) -> str:
    return 'missing' if wrong is MISSING else 'a tensor' if isinstance(wrong, torch.Tensor) else str(wrong)[:30]


def other_thing(kind: str, file: Path) -> None:
    instead(dict(of_place(file))[kind], file)


def put_values(path: tuple, wrong, file: Path) -> None:
    file.write_bytes(as_checkpoint(with_value(torch.load(file, weights_only=True), path, wrong)))


# What is read.

def made(root: Path, name: str, make: Callable[[Path], None]) -> Path:
    """A folder of files that ``make`` writes in a process of its own."""
    base = root / name
    base.mkdir(parents=True)
    if (end := run(partial(make, base), base, 600)).how != 'done':
        raise RuntimeError(f'{name}: {end}')
    return base


def digest_of_arrays(dataset) -> str:
    return digest([dataset.images, dataset.labels, dataset.metainfo['classes']])


def trained(*args: str) -> dict:
    train_tool.main(['run.py', '--work-dir', 'out', *args])
    return {key: value for key, value in state_of_training('out')(Path()).items() if key.endswith('.pth')}


def ready(base: Path) -> None:
    finished_training(base)
    shutil.copy(base / 'out' / 'epoch_1.pth', base / 'start.pth')
    weights = torch.load(base / 'start.pth', weights_only=True)['state_dict']
    (base / 'start.safetensors').write_bytes(to_safetensors(
        {key: value.contiguous() for key, value in weights.items() if key.startswith('student.')}))


def exported(base: Path) -> None:
    ready(base)
    tiny.write_folder(base / 'images', 1)
    for folder in sorted((base / 'images').glob('*'))[1:]:
        shutil.rmtree(folder)
    export_student.main(['out', '--out', 'student', '--onnx', 'student.onnx'])


def answers(*args: str) -> str:
    predict.main(['images', *args, '--json', 'answers.json'])
    return digest([each['classes'] for each in json.loads(Path('answers.json').read_text())['images']])


def pairs_digest(pairs) -> str:
    return digest([pairs.images.tobytes(), pairs.left.tolist(), pairs.right.tolist(), pairs.same.tolist()])


def readers(root: Path) -> Iterator[Reader]:
    """All that read, each made when it is asked for."""
    base = made(root, 'training', ready)
    yield Reader('--resume', base, partial(trained, '--resume', '--cfg-options', 'train_cfg.max_epochs=2'),
                 ('out/epoch_1.pth', ), ('out/last_checkpoint', ))
    yield Reader('--resume FILE', base, partial(trained, '--resume', 'start.pth', '--cfg-options',
                                                'train_cfg.max_epochs=2'), ('start.pth', ), number=50)
    yield Reader('load_from', base, partial(trained, '--overwrite', '--cfg-options', 'load_from=start.pth'), ('start.pth', ),
                 number=50)
    yield Reader('the teacher', base, partial(trained, '--overwrite'), ('teacher.pth', ), number=50)
    yield Reader('Pretrained', base, partial(
        trained, '--overwrite', '--cfg-options', 'model.student.backbone.init_cfg.type=Pretrained',
        'model.student.backbone.init_cfg.checkpoint=start.pth', 'model.student.backbone.init_cfg.prefix=student.backbone'),
        ('start.pth', ), number=40)
    yield Reader('safetensors', base, partial(trained, '--overwrite', '--cfg-options', 'load_from=start.safetensors'),
                 ('start.safetensors', ), same=False)
    yield Reader('a config', base, partial(trained, '--overwrite'), texts=('run.py', ), same=False)

    base = made(root, 'exported', exported)
    yield Reader('a test', base, lambda: test_tool.main(['run.py', 'out', '--out', 'm.json']) or json.loads(
        Path('m.json').read_text()), ('out/epoch_1.pth', ), number=40)
    yield Reader('an export', base, lambda: export_student.main(['out', '--overwrite']) or digest(
        torch.load('out/student/student.pth', weights_only=True)['state_dict']), ('out/epoch_1.pth', ), number=40)
    yield Reader('the config beside a checkpoint', base, partial(answers, 'out'), texts=('out/run.py', ), same=False)
    yield Reader('an exported student', base, partial(answers, 'student'), ('student/student.pth', ), number=40)
    yield Reader('the config of an exported student', base, partial(answers, 'student'),
                 texts=('student/student.py', ), same=False)
    yield Reader('an ONNX file', base, partial(answers, 'student.onnx'), ('student.onnx', ), same=False)

    def cached(base: Path) -> None:
        finished_training(base)
        cache_teacher.main(['run.py', '--views', '2', '--folder', 'answers'])

    base = made(root, 'cached', cached)
    from_cache = ('--overwrite', '--cfg-options', 'model.teacher_cache.folder=answers')
    names = ('answers/manifest.json', 'answers/embedding.npy', 'answers/logits.npy', 'answers/classifier_weight.npy')
    yield Reader("a teacher's answers", base, partial(trained, *from_cache), names, number=30)
    yield Reader("answers without their teacher", base, partial(
        trained, *from_cache, 'model.teacher_checkpoint=gone.pth'), names, number=15)

    def half_cached(base: Path) -> None:
        cached(base)
        part, manifest = base / 'answers.part', json.loads((base / 'answers/manifest.json').read_text())
        (base / 'answers').rename(part)
        head = {key: manifest[key] for key in ('format', 'about', 'shape', 'fingerprint')}
        (part / 'head.json').write_text(json.dumps(head))
        (part / 'blocks.txt').write_text(f'0 {manifest["blocks"][0]} end\n1 {manifest["blocks"][1]} end\n')
        for name in ('manifest.json', 'classifier_weight.npy', 'classifier_bias.npy'):
            (part / name).unlink()

    def cache_again() -> str:
        cache_teacher.main(['run.py', '--views', '2', '--folder', 'answers'])
        return digest([np.load(f'answers/{name}.npy').tobytes() for name in ('embedding', 'logits')])

    yield Reader('half of the answers', made(root, 'half', half_cached), cache_again,
                 ('answers.part/head.json', 'answers.part/logits.npy'), ('answers.part/blocks.txt', ), number=30)
    yield from image_readers(root)
    yield from set_readers(root)


def image_readers(root: Path) -> Iterator[Reader]:
    kinds = dict(png='PNG', jpg='JPEG', bmp='BMP', gif='GIF', ppm='PPM', tif='TIFF', webp='WEBP')

    def make(base: Path) -> None:
        picture = test_verification_sets.image_of(0, 24)
        for suffix, kind in kinds.items():
            picture.save(base / f'a.{suffix}', kind)

    base = made(root, 'images', make)
    for suffix in kinds:
        yield Reader(f'an image {suffix}', base, lambda suffix=suffix: read_image(f'a.{suffix}').shape, (f'a.{suffix}', ),
                     same=False)

    def listed(base: Path) -> None:
        tiny.write_teacher(base / 'teacher.pth')
        tiny.write_folder(base / 'train', 0)
        tiny.write_folder(base / 'val', 1)
        files = sorted((base / 'train').glob('*/*.png'))
        (base / 'train' / 'list.txt').write_text(''.join(
            f'{file.relative_to(base / "train")} {file.parent.name[-1]}\n' for file in files))
        val, train = tiny.pipeline_loader(Path('val'), False), tiny.pipeline_loader(Path('train'), True)
        train['dataset'].update(ann_file='list.txt', data_prefix='')
        write_config(tiny.config('', tiny.crrcd(Path('teacher.pth')), epochs=1, custom_hooks=HOOKS, train_dataloader=train,
                                 val_dataloader=val, test_dataloader=val, val_evaluator=dict(type='Accuracy', topk=(1, )),
                                 test_evaluator=dict(type='Accuracy', topk=(1, ))), base / 'run.py')

    yield Reader('images to train on', made(root, 'listed', listed), partial(trained), ('train/class0/000.png', ),
                 ('train/list.txt', ), same=False, number=40)


def set_readers(root: Path) -> Iterator[Reader]:
    rng = np.random.default_rng(0)

    def cifar(base: Path) -> None:
        folder = base / 'cifar-10-batches-py'
        folder.mkdir()
        data = dict(data=np.zeros((10_000, 3072), np.uint8), labels=[i % 10 for i in range(10_000)])
        (folder / 'test_batch').write_bytes(pickle.dumps(data, 4))
        (folder / 'batches.meta').write_bytes(pickle.dumps(dict(label_names=[f'c{i}' for i in range(10)]), 2))

    yield Reader('CIFAR', made(root, 'cifar', cifar), lambda: len(CIFAR10Arrays('.', 'test', download=False)),
                 ('cifar-10-batches-py/test_batch', 'cifar-10-batches-py/batches.meta'), same=False)

    def svhn(base: Path) -> None:
        savemat(base / 'test_32x32.mat', dict(X=rng.integers(256, size=(32, 32, 3, 20), dtype=np.uint8),
                                              y=np.arange(1, 21, dtype=np.uint8)[:, None] % 10 + 1), do_compression=True)

    yield Reader('SVHN', made(root, 'svhn', svhn), lambda: digest_of_arrays(SVHNArrays('.', 'test', part=True, download=False)),
                 ('test_32x32.mat', ))

    def stl(base: Path) -> None:
        folder = base / 'stl10_binary'
        folder.mkdir()
        (folder / 'train_X.bin').write_bytes(rng.bytes(20 * 3 * 96 * 96))
        (folder / 'train_y.bin').write_bytes(bytes(1 + i % 10 for i in range(20)))
        (folder / 'class_names.txt').write_text(''.join(f'class{i}\n' for i in range(10)))
        (folder / 'fold_indices.txt').write_text(''.join(f'{fold} {19 - fold} {fold + 5} \n' for fold in range(10)))

    def read_stl() -> str:
        stl10.COUNTS['train'] = 20
        return digest_of_arrays(STL10Arrays('.', fold=3, download=False))

    yield Reader('STL-10', made(root, 'stl', stl), read_stl, ('stl10_binary/train_y.bin', 'stl10_binary/train_X.bin'),
                 ('stl10_binary/class_names.txt', 'stl10_binary/fold_indices.txt'), same=False)

    def tiny_image_net(base: Path) -> None:
        folder, numbers = base / 'tiny-imagenet-200', [f'n{i:08}' for i in range(200)]
        image = test_verification_sets.image_of(1, 64)
        for name in numbers[:12]:
            (folder / 'val' / 'images').mkdir(parents=True, exist_ok=True)
            image.save(folder / 'val' / 'images' / f'{name}.JPEG')
        (folder / 'val' / 'val_annotations.txt').write_text(''.join(
            f'{name}.JPEG\t{name}\t0\t0\t9\t9\n' for name in numbers[:12]))
        (folder / 'wnids.txt').write_text('\n'.join(numbers) + '\n')
        (folder / 'words.txt').write_text(''.join(f'{name}\tname of {name}\n' for name in numbers))

    def read_tiny() -> str:
        tiny_imagenet.COUNTS['val'] = 12
        return digest_of_arrays(TinyImageNetArrays('.', 'val', download=False))

    yield Reader('Tiny ImageNet', made(root, 'tiny', tiny_image_net), read_tiny,
                 ('tiny-imagenet-200/val/images/n00000000.JPEG', ),
                 tuple(f'tiny-imagenet-200/{name}' for name in ('wnids.txt', 'words.txt', 'val/val_annotations.txt')),
                 same=False)

    def faces(base: Path) -> None:
        for seed, name in enumerate([*test_verification_sets.NAMES, 'Eve 1']):
            person, number = name.split()
            path = base / 'faces' / person / f'{person}_{int(number):04d}.jpg'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(test_verification_sets.encoded(seed))
        (base / 'pairs.txt').write_text(test_verification_sets.PAIRS)
        (base / 'people.txt').write_text('Ann\nBob\nCas\n')
        images = [test_verification_sets.encoded(i % 12) for i in range(40)]
        (base / 'set.bin').write_bytes(pickle.dumps((images, [i % 2 == 0 for i in range(20)]), 2))

    base = made(root, 'faces', faces)
    yield Reader("LFW's pairs", base, lambda: pairs_digest(lfw_pairs('faces', 'pairs.txt', 16)),
                 ('faces/Ann/Ann_0001.jpg', ), ('pairs.txt', ), same=False)
    yield Reader('a folder of faces', base, lambda: digest_of_arrays(FaceFolder('faces', 16, identities='people.txt')),
                 ('faces/Ann/Ann_0001.jpg', ), ('people.txt', ), same=False, number=25)
    yield Reader('faces but those of pairs', base, lambda: digest_of_arrays(FaceFolder('faces', 16, exclude='pairs.txt')),
                 texts=('pairs.txt', ), same=False)
    yield Reader('a set of pairs', base, lambda: pairs_digest(bin_pairs('set.bin', 16)), ('set.bin', ), same=False)

    def decoded(base: Path) -> None:
        faces(base)
        FaceFolder('faces', 16)

    yield Reader('decoded images', made(root, 'decoded', decoded), lambda: len(FaceFolder('faces', 16)),
                 ('faces/mmcrrcd*.npy', ))

    def records(base: Path) -> None:
        meta = struct.pack('<IfQQ', 2, 0, 0, 0) + struct.pack('<2f', 8, 11)
        test_recordio.write(base, {0: meta} | {
            i: test_recordio.header(float(label), i) + test_recordio.jpeg(i)
            for i, label in enumerate(test_recordio.LABELS, 1)})

    def read_records() -> int:
        data = RecordFaces('.', 16)
        return sum(len(data[i]['inputs']) for i in range(len(data)))

    yield Reader('RecordIO', made(root, 'records', records), read_records, ('train.rec', ), ('train.idx', ), same=False)

    def uccs(base: Path) -> None:
        for person in ('anna', 'bert'):
            for i in range(4):
                path = base / person / f'{i}.png'
                path.parent.mkdir(exist_ok=True)
                test_verification_sets.image_of(i).save(path)
        for name, numbers in (('train', (0, 1, 2)), ('test', (3, ))):
            (base / f'{name}.txt').write_text(''.join(f'{person}/{i}.png\n' for person in ('anna', 'bert') for i in numbers))

    yield Reader('UCCS', made(root, 'uccs', uccs), lambda: digest_of_arrays(UCCSFaces('.', 'train', 16)), ('anna/0.png', ),
                 ('train.txt', 'test.txt'), same=False)

    def tinyface(base: Path) -> None:
        folder = base / 'Testing_Set'
        for part, names in (('Gallery_Match', ('1_1.jpg', '2_1.jpg')), ('Probe', ('1_2.jpg', )),
                            ('Gallery_Distractor', ('9.jpg', ))):
            (folder / part).mkdir(parents=True)
            for name in names:
                test_verification_sets.image_of(len(name)).save(folder / part / name)
        savemat(folder / 'gallery_match_img_ID_pairs.mat', dict(gallery_set=np.array(['1_1.jpg', '2_1.jpg'], object)[:, None],
                                                                gallery_ids=np.array([[1], [2]], np.uint16)))
        savemat(folder / 'probe_img_ID_pairs.mat', dict(probe_set=np.array(['1_2.jpg'], object)[:, None],
                                                        probe_ids=np.array([[1.]])))

    def read_tinyface_whole() -> list:
        found = read_tinyface('.')
        return [part.images(16).shape for part in found]

    yield Reader('TinyFace', made(root, 'tinyface', tinyface), read_tinyface_whole,
                 ('Testing_Set/probe_img_ID_pairs.mat', 'Testing_Set/Probe/1_2.jpg'), same=False, number=30)
