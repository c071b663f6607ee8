"""Every image file is read by one function: the right pixels, no other program, no flood of memory."""
import io
import os
import pickle
import platform
import struct
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image

from mmcrrcd.datasets import FaceFolder, decoded, read_image
from mmcrrcd.datasets.mended import LoadNamedImage
from mmcrrcd.datasets.read_image import MAX_PIXELS, ImageError
from mmcrrcd.errors import InputError, printable

read = read_image.read_image
EPS = b'''%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
(touched) (w) file closefile showpage
%%EOF
'''


def ramp(shape: tuple[int, ...] = (6, 9), top: int = 256) -> np.ndarray:
    return np.random.default_rng(3).integers(0, top, shape)


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.pgm'])
def test_gray_of_16_bits_keeps_its_upper_8(tmp_path, suffix):
    gray = ramp(top=65536).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / f'gray{suffix}')
    assert np.array_equal(read(tmp_path / f'gray{suffix}'), np.repeat((gray >> 8).astype(np.uint8)[..., None], 3, 2))


def test_more_than_16_bits_are_refused(tmp_path):
    for kind in (np.int32, np.float32):
        Image.fromarray(ramp().astype(kind)).save(tmp_path / 'deep.tif')
        with pytest.raises(ImageError, match='more than 16 bits'):
            read(tmp_path / 'deep.tif')


@pytest.mark.parametrize('orientation, turned', [(1, lambda a: a), (2, lambda a: a[:, ::-1]), (3, partial(np.rot90, k=2)),
                                                 (6, partial(np.rot90, k=-1)), (8, np.rot90)])
@pytest.mark.parametrize('suffix', ['.png', '.tif', '.webp'])
def test_images_are_turned_as_exif_says(tmp_path, orientation, turned, suffix):
    pixels = ramp((6, 9, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = dict(lossless=True) if suffix == '.webp' else {}
    Image.fromarray(pixels).save(tmp_path / f'a{suffix}', exif=exif, **options)
    assert np.array_equal(read(tmp_path / f'a{suffix}'), turned(pixels))


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGBA', 'CMYK'])
def test_other_modes_become_rgb(tmp_path, mode):
    image = Image.fromarray(ramp((6, 9, 3)).astype(np.uint8)).convert(mode)
    image.save(tmp_path / 'a.tif' if mode == 'CMYK' else tmp_path / 'a.png')
    found = read(next(tmp_path.glob('a.*')))
    assert np.array_equal(found, np.asarray(image.convert('RGB'))) and found.shape == (6, 9, 3)


@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.eps'])
def test_postscript_starts_no_program_under_any_name(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(EPS)
    monkeypatch.setattr('subprocess.check_call', lambda *_, **__: pytest.fail('a program was started'))
    monkeypatch.setattr('subprocess.Popen', lambda *_, **__: pytest.fail('a program was started'))
    for source in (tmp_path / name, EPS):
        with pytest.raises(ImageError, match='it is none of BMP, GIF, JPEG'):
            read(source, 'a.png')


@pytest.mark.parametrize('kind', ['ICNS', 'PCX', 'TGA', 'SGI', 'IM', 'PDF'])
def test_formats_that_nobody_needs_are_not_tried(tmp_path, kind):
    Image.fromarray(ramp((16, 16, 3)).astype(np.uint8)).save(tmp_path / 'a.png', kind)
    with pytest.raises(ImageError, match='it is none of'):
        read(tmp_path / 'a.png')


def huge_png(width: int, height: int) -> bytes:
    """A small file with a large image: rows of zeros."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b''.join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)) + chunk(b'IDAT', rows)
            + chunk(b'IEND', b''))


def test_a_small_file_with_a_huge_image_is_refused_before_it_is_decoded(monkeypatch):
    content = huge_png(12_000, 12_000)
    assert len(content) < 200_000
    monkeypatch.setattr(Image.Image, 'load', lambda *_: pytest.fail('it was decoded'))
    with pytest.raises(ImageError, match=f'12000 x 12000 pixels are more than {MAX_PIXELS:,}') as error:
        read(content, 'small.png')
    assert '\n' not in str(error.value)


def test_a_pipeline_of_mmpretrain_refuses_it_too(tmp_path):
    (tmp_path / 'small.png').write_bytes(huge_png(12_000, 12_000))
    with pytest.raises(ImageError, match=f'small.png cannot be read as an image .*more than {MAX_PIXELS:,} pixels'):
        LoadNamedImage().transform(dict(img_path=str(tmp_path / 'small.png')))


def test_what_is_no_image_is_named_in_one_line(tmp_path):
    (tmp_path / 'empty.png').touch()
    (tmp_path / 'text.png').write_text('no image')
    whole = io.BytesIO()
    Image.fromarray(ramp((40, 40, 3)).astype(np.uint8)).save(whole, 'PNG')
    (tmp_path / 'cut.png').write_bytes(whole.getvalue()[:900])
    os.mkfifo(tmp_path / 'pipe.png')
    (tmp_path / 'folder.png').mkdir()
    for name, reason in (('empty', 'it is empty'), ('text', 'it is none of'), ('cut', 'truncated'),
                         ('pipe', 'it is no regular file'), ('folder', '.'), ('missing', 'No such file')):
        with pytest.raises(InputError, match=f'{name}.png cannot be read as an image .*{reason}') as error:
            read(tmp_path / f'{name}.png')
        assert '\n' not in str(error.value)


def test_the_error_comes_whole_from_another_process():
    error = pickle.loads(pickle.dumps(ImageError('a.png', 'it is empty')))
    assert str(error) == 'a.png cannot be read as an image (it is empty)' and error.reason == 'it is empty'


def face(folder, i: int) -> None:
    (folder / 'Ann').mkdir(parents=True, exist_ok=True)
    Image.fromarray(ramp((16, 16), 65536).astype(np.uint16)).save(folder / 'Ann' / f'{i}.png')


def test_faces_are_read_by_it_and_decoded_anew_by_another_reader(tmp_path, monkeypatch):
    face(tmp_path, 0)
    expected = read(tmp_path / 'Ann' / '0.png')
    assert np.array_equal(FaceFolder(tmp_path, 16).images[0], expected)
    before, = tmp_path.glob('*.npy')
    monkeypatch.setattr(decoded, 'READER', 'another')
    assert np.array_equal(FaceFolder(tmp_path, 16).images[0], expected)
    after, = tmp_path.glob('*.npy')
    assert before != after


def test_what_a_killed_process_left_of_a_cache_is_removed_but_nothing_of_a_running_one(tmp_path):
    face(tmp_path, 0)
    FaceFolder(tmp_path, 16)
    cache, = tmp_path.glob('*.npy')
    cache.unlink()
    host = platform.node()
    dead, alive, elsewhere, odd = (tmp_path / f'{cache.name}.{end}.part'
                                   for end in (f'{host}.4194305', f'{host}.{os.getppid()}', 'else.7', f'{host}.x'))
    for each in (dead, alive, elsewhere, odd):
        each.write_bytes(b'half')
    FaceFolder(tmp_path, 16)
    assert cache.exists() and [each.exists() for each in (dead, alive, elsewhere, odd)] == [False, True, True, False]


def test_a_planted_link_is_not_followed(tmp_path):
    face(tmp_path, 0)
    FaceFolder(tmp_path, 16)
    cache, = tmp_path.glob('*.npy')
    cache.unlink()
    precious = tmp_path / 'precious'
    precious.write_text('mine')
    (tmp_path / f'{cache.name}.{platform.node()}.{os.getpid()}.part').symlink_to(precious)
    FaceFolder(tmp_path, 16)
    assert precious.read_text() == 'mine' and cache.is_file() and not cache.is_symlink()


def test_control_characters_are_printed_as_escapes():
    assert printable('Zoë\x1b[2J\r\n\u202egnp\udce9.png') == 'Zoë\\x1b[2J\\r\\n\\u202egnp\\udce9.png'
