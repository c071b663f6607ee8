"""RecordIO files, written here byte by byte in MXNet's form with InsightFace's records."""
import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcrrcd.datasets import RecordFaces, decoded, recordio, whole_batch
from mmcrrcd.errors import InputError
from mmcrrcd.registry import DATASETS
from PIL import Image
from torch.utils.data import DataLoader

MAGIC = b'\x0a\x23\xd7\xce'                              # 0xced7230a, little endian
LABELS = [0, 0, 2, 2, 2, 1, 3]                           # of the images 1 to 7


def jpeg(seed: int, side: int = 16) -> bytes:
    small = np.random.default_rng(seed).integers(256, size=(4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(file, 'JPEG', quality=95)
    return file.getvalue()


def with_magic(content: bytes, where: int) -> bytes:
    """A JPEG with a comment of which MAGIC is a part, ``where`` bytes behind its first word."""
    comment = bytes(where) + MAGIC + b'between' + bytes(1) + MAGIC + MAGIC + b'end'
    return content[:2] + b'\xff\xfe' + struct.pack('>H', 2 + len(comment)) + comment + content[2:]


def header(label: float | list[float], number: int) -> bytes:
    """MXNet's IRHeader: uint32, float32, 2 x uint64, and the labels where there are several."""
    if isinstance(label, list):
        return struct.pack('<IfQQ', len(label), 0, number, 0) + struct.pack(f'<{len(label)}f', *label)
    return struct.pack('<IfQQ', 0, label, number, 0)


def framed(record: bytes) -> bytes:
    """As dmlc's writer does it: cut at each MAGIC that lies at a multiple of four bytes, which is left out."""
    cuts = [i for i in range(0, len(record) - 3, 4) if record[i:i + 4] == MAGIC]
    begins, ends = [0] + [i + 4 for i in cuts], cuts + [len(record)]
    out = b''
    for i, (begin, end) in enumerate(zip(begins, ends)):
        part = 0 if not cuts else 1 if i == 0 else 3 if i == len(cuts) else 2
        content = record[begin:end]
        out += MAGIC + struct.pack('<I', part << 29 | len(content)) + content + bytes(-len(content) % 4)
    return out


def write(folder: Path, records: dict[int, bytes]) -> Path:
    """``train.rec`` and ``train.idx``, in the order of the dictionary."""
    folder.mkdir(parents=True, exist_ok=True)
    whole, index = b'', ''
    for number, record in records.items():
        index += f'{number}\t{len(whole)}\n'
        whole += framed(record)
    (folder / 'train.rec').write_bytes(whole)
    (folder / 'train.idx').write_text(index)
    return folder


def insightface(images: list[bytes]) -> dict[int, bytes]:
    """Images, then one record a person with the range of the own images, then record 0 with the range of those."""
    records = {i: header(label if i % 2 else [label, 9], i) + image for i, (label, image) in enumerate(zip(LABELS, images), 1)}
    people = {8: [1, 3], 9: [6, 7], 10: [3, 6], 11: [7, 8]}
    records |= {number: header(images, number) for number, images in people.items()}
    return records | {0: header([8, 12], 0)}


IMAGES = [jpeg(i) for i in range(7)]


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / 'faces', insightface(IMAGES))


def pixels(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)))


@pytest.mark.parametrize('cached', (False, True))
@pytest.mark.parametrize('workers', (0, 2))
def test_batches(folder, tmp_path, cached, workers):
    dataset = RecordFaces(folder, 16, tmp_path / 'cache' if cached else None)
    assert len(dataset) == 7 and dataset.metainfo['classes'] == ('0', '1', '2', '3') and dataset.labels.tolist() == LABELS
    batches = list(DataLoader(dataset, batch_size=4, collate_fn=whole_batch, num_workers=workers))
    assert [len(batch['inputs']) for batch in batches] == [4, 3]
    inputs = torch.cat([batch['inputs'] for batch in batches])
    assert inputs.dtype == torch.uint8
    assert np.array_equal(inputs.permute(0, 2, 3, 1).numpy(), np.stack([pixels(image) for image in IMAGES]))
    assert torch.cat([batch['labels'] for batch in batches]).tolist() == LABELS
    assert torch.cat([batch['index'] for batch in batches]).tolist() == list(range(7))


@pytest.mark.parametrize('where, expected', [(2, {0, 1, 2, 3}), (3, {0})])
def test_records_in_several_parts(tmp_path, where, expected):
    images = [with_magic(image, where) for image in IMAGES]
    folder = write(tmp_path, insightface(images))
    words = np.fromfile(folder / 'train.rec', '<u4')
    assert set((words[1:][words[:-1] == 0xced7230a] >> 29).tolist()) == expected
    file = recordio.RecordFile(folder / 'train.rec')
    assert [recordio.unpack(record, '')[1] for record in file.read(np.arange(1, 8))] == images
    dataset = RecordFaces(folder, 16)
    assert dataset.labels.tolist() == LABELS
    assert np.array_equal(dataset[4]['inputs'][0].permute(1, 2, 0).numpy(), pixels(IMAGES[4]))


def test_record_0_may_be_an_image(tmp_path):
    folder = write(tmp_path, {i: header(label, i) + image for i, (label, image) in enumerate(zip(LABELS, IMAGES))})
    dataset = RecordFaces(folder, 16)
    assert dataset.labels.tolist() == LABELS
    assert np.array_equal(dataset[0]['inputs'][0].permute(1, 2, 0).numpy(), pixels(IMAGES[0]))


def test_images_of_another_size(folder):
    expected = Image.open(io.BytesIO(IMAGES[2])).resize((8, 8), Image.Resampling.BILINEAR)
    assert np.array_equal(RecordFaces(folder, 8)[2]['inputs'][0].permute(1, 2, 0).numpy(), np.asarray(expected))


def test_the_decoded_file(folder, tmp_path, monkeypatch):
    cache = tmp_path / 'cache'
    first = RecordFaces(folder, 16, cache).images.numpy().copy()
    another = write(tmp_path / 'another' / 'faces', insightface(IMAGES[::-1]))
    assert np.array_equal(RecordFaces(another, 16, cache).images.numpy(), first[::-1])
    assert len(list(cache.iterdir())) == 2               # of the same name, each with its own
    with monkeypatch.context() as patch:
        patch.delattr(decoded, 'read_image')
        assert np.array_equal(RecordFaces(folder, 16, cache).images.numpy(), first)
    write(folder, insightface([jpeg(i + 100) for i in range(7)]))
    assert not np.array_equal(RecordFaces(folder, 16, cache).images.numpy(), first) and len(list(cache.iterdir())) == 2


def test_from_a_config(folder):
    assert len(DATASETS.build(dict(type='mmcrrcd.RecordFaces', data_root=str(folder)))) == 7


def in_index(number: int, change) -> object:
    def damage(folder: Path) -> None:
        lines = (folder / 'train.idx').read_text().splitlines()
        lines = [change(line) if line.startswith(f'{number}\t') else line for line in lines]
        (folder / 'train.idx').write_text('\n'.join(line for line in lines if line) + '\n')
    return damage


def cut(by: int) -> object:
    def damage(folder: Path) -> None:
        path = folder / 'train.rec'
        path.write_bytes(path.read_bytes()[:-by])
    return damage


def records(**changed) -> object:
    return lambda folder: write(folder, insightface(IMAGES) | {int(key[1:]): value for key, value in changed.items()})


@pytest.mark.parametrize('damage, message', [
    (cut(1), 'train.rec is cut short: record 0 goes beyond its end, byte'),
    (cut(36), 'train.rec is cut short: its index has a record at byte'),
    (lambda folder: (folder / 'train.rec').write_bytes(b''), 'train.rec is cut short: its index has a record at byte'),
    (in_index(5, lambda line: ''), 'train.rec: its index has no record 5'),
    (in_index(0, lambda line: ''), 'train.rec: its index has no record 0'),
    (in_index(5, lambda line: '5\t8'), 'train.rec: no record 5 at byte 8; is its .idx that of another file?'),
    (in_index(5, lambda line: '5\t7'), 'train.idx: record 5 is at byte 7, expected a multiple of 4'),
    (in_index(5, lambda line: '5\t-4'), 'train.idx: record 5 is at byte -4, expected a multiple of 4'),
    (in_index(5, lambda line: '5 7'), 'train.idx: expected lines of a number, a tab and a byte ('),
    (lambda folder: (folder / 'train.idx').write_bytes(b'\xff\xfe\x00'), 'train.idx: expected lines of a number'),
    (records(_0=header([14, 18], 0)), 'train.rec: record 0 says that the images end before number 14, but the index has 12'),
    (records(_0=header([1, 5], 0)), 'train.rec: record 0 says that the images end before number 1,'),
    (records(_0=header([float('nan'), 5], 0)), 'train.rec: record 0 says that the images end before number nan,'),
    (records(_3=b'short'), 'train.rec: record 3: expected at least 24 bytes, got '),
    (records(_3=struct.pack('<IfQQ', 1 << 31, 0, 3, 0)), 'train.rec: record 3: 2147483648 labels do not fit into its 24 bytes'),
    (records(_3=header(-1, 3) + IMAGES[2]), 'train.rec: record 3 has the label -1'),
    (records(_3=header(float('nan'), 3) + IMAGES[2]), 'train.rec: record 3 has the label nan'),
    (records(_3=header(1e9, 3) + IMAGES[2]), 'train.rec: record 3 has the label 1e+09'),
])
def test_damaged_files_end_in_one_line_before_training(folder, damage, message):
    damage(folder)
    with pytest.raises(InputError) as error:
        RecordFaces(folder, 16)
    assert str(error.value).startswith(f'{folder}/{message}') and '\n' not in str(error.value)


def test_a_last_part_that_is_cut_off(tmp_path):
    folder = write(tmp_path, {0: header(0, 0) + IMAGES[0], 1: header(0, 1) + with_magic(IMAGES[1], 2)})
    whole = (folder / 'train.rec').read_bytes()
    for end in (whole.rindex(MAGIC), whole.rindex(MAGIC) + 6, whole.rindex(MAGIC) + 12):
        (folder / 'train.rec').write_bytes(whole[:end])
        dataset = RecordFaces(folder, 16)
        dataset[0]
        with pytest.raises(InputError, match=f'train.rec is cut short: record 1 goes beyond its end, byte {end:,}$'):
            dataset[1]
    (folder / 'train.rec').write_bytes(whole[:whole.rindex(MAGIC)] + framed(header(0, 2) + IMAGES[0]))
    with pytest.raises(InputError, match='train.rec: no record 1 at byte'):
        RecordFaces(folder, 16)[1]


def test_an_image_that_cannot_be_read(tmp_path):
    folder = write(tmp_path, insightface(IMAGES[:3] + [IMAGES[3][:200]] + IMAGES[4:]))
    with pytest.raises(InputError) as error:
        RecordFaces(folder, 16)[3]
    assert str(error.value).startswith(f'{folder}/train.rec: record 4 cannot be read as an image (')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ('train.rec', 'train.idx'))
def test_missing_files_are_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f'^there is no file {folder}/{name}$'):
        RecordFaces(folder)
