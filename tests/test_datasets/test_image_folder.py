"""Images of one's own, in every form in which people have them."""
import numpy as np
import pytest
import torch
from mmcrrcd.datasets import ImageFolder
from mmcrrcd.datasets.image_folder import images_below, read_annotations, read_split
from mmcrrcd.datasets.replay import boxes_of
from mmcrrcd.errors import InputError
from mmcrrcd.models.preprocessor import crop_and_resize
from PIL import Image


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(path, value=0, size=(10, 12), mode='RGB'):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def folder(root, classes=('cat', 'dog'), number=10):
    for i, name in enumerate(classes):
        for j in range(number):
            write(root / name / f'{j:02}.png', (10 * i, j, 0))
    return root


def shown(data):
    """(class, number of the image) of each."""
    return {(data.metainfo['classes'][label], int(image[0, 0, 1])) for image, label in zip(data.images, data.labels)}


def test_a_tenth_is_held_out_evenly_and_by_the_seed(tmp_path):
    root = folder(tmp_path / 'my images', ('cat', 'dog', 'eel'), 20)
    train, val = (ImageFolder(str(root), split, image_size=8) for split in ('train', 'val'))
    assert shown(train) | shown(val) == {(name, i) for name in ('cat', 'dog', 'eel') for i in range(20)}
    assert not shown(train) & shown(val)
    assert val.labels.bincount().tolist() == [2, 2, 2]
    assert shown(ImageFolder(str(root), 'test', image_size=8)) == shown(val)
    assert shown(ImageFolder(str(root), 'val', image_size=8, seed=1)) != shown(val)
    assert ImageFolder.list_classes(str(root)) == ('cat', 'dog', 'eel')
    small = folder(tmp_path / 'two', number=2)
    assert len(ImageFolder(str(small), 'val', image_size=8)) == 2 == len(ImageFolder(str(small), image_size=8))


def test_train_and_val_and_test_with_fewer_classes_and_files_below(tmp_path):
    folder(tmp_path / 'data' / 'train', ('cat', 'dog', 'eel'), 2)
    write(tmp_path / 'data' / 'val' / 'eel' / 'images' / '1.JPEG')
    folder(tmp_path / 'data' / 'test', ('dog', ), 3)
    assert len(ImageFolder(str(tmp_path / 'data'), image_size=8)) == 6
    assert ImageFolder(str(tmp_path / 'data'), 'val', image_size=8).labels.tolist() == [2]
    assert ImageFolder(str(tmp_path / 'data'), 'test', image_size=8).labels.tolist() == [1, 1, 1]
    write(tmp_path / 'data' / 'val' / 'fox' / '1.png')
    with pytest.raises(InputError, match="has the class 'fox', which the training images do not have"):
        ImageFolder(str(tmp_path / 'data'), 'val')


def test_a_class_may_be_called_train(tmp_path):
    assert ImageFolder.list_classes(str(folder(tmp_path / 'toys', ('car', 'train')))) == ('car', 'train')


def test_an_annotation_file_of_mmpretrain(tmp_path):
    folder(tmp_path / 'images')
    lines = [f'images/{name}/{i:02}.png {label}' for label, name in ((1, 'cat'), (0, 'dog')) for i in range(4)]
    (tmp_path / 'list.txt').write_text('\n'.join(lines))
    assert ImageFolder(str(tmp_path / 'list.txt'), image_size=8).metainfo['classes'] == ('0', '1')
    (tmp_path / 'classes.txt').write_text('a dog\na cat\n')
    assert shown(ImageFolder(str(tmp_path / 'list.txt'), 'val', image_size=8)) < {
        (f'a {name}', i) for name in ('cat', 'dog') for i in range(4)}
    (tmp_path / 'split').mkdir()
    (tmp_path / 'split' / 'train.txt').write_text('../images/cat/00.png 0\n../images/dog/00.png 1\n')
    (tmp_path / 'split' / 'val.txt').write_text('../images/cat/01.png 0\n')
    assert shown(ImageFolder(str(tmp_path / 'split'), 'val', image_size=8)) == {('0', 1)}


def test_without_classes_there_are_no_labels_and_no_validation(tmp_path):
    for i in range(3):
        write(tmp_path / 'pile' / f'{i}.png', (0, i, 0))
    data = ImageFolder(str(tmp_path / 'pile'), image_size=8)
    assert 'labels' not in data.__getitems__([0, 2]) and data.__getitems__([0, 2])['index'].tolist() == [0, 2]
    assert data.metainfo == {} and ImageFolder.list_classes(str(tmp_path / 'pile')) == ()
    assert len(ImageFolder(str(tmp_path), labels=False, image_size=8)) == 3
    with pytest.raises(InputError, match='no classes, so there is nothing to test on'):
        ImageFolder(str(tmp_path / 'pile'), 'val')


def test_any_format_size_and_shape_is_decoded_once_and_anew_where_files_change(tmp_path, monkeypatch):
    root = tmp_path / 'data'
    for name, size, mode in (('a.png', (9, 30), 'RGBA'), ('b.jpg', (40, 8), 'L'), ('c.gif', (8, 8), 'P'),
                             ('d.bmp', (1, 1), 'RGB')):
        write(root / 'all' / name, 0, size, mode)
    first = ImageFolder(str(root), image_size=8, holdout=0.25)
    assert first.images.shape == (3, 8, 8, 3) and not list(root.rglob('*.npy'))
    with monkeypatch.context() as patch:
        patch.setattr('mmcrrcd.datasets.decoded.write_cache', None)         # decoded already
        ImageFolder(str(root), image_size=8, holdout=0.25)
    write(root / 'all' / 'd.bmp', (255, 255, 255), (2, 2))
    again = ImageFolder(str(root), image_size=8, holdout=0.25)
    assert len(again) == 3 and len(list((tmp_path / 'work_dirs' / 'decoded').glob('*-train-*.npy'))) == 1


def broken(root):
    folder(root)
    (root / 'cat' / 'x.png').write_bytes(b'none')


def empty(root):
    folder(root)
    (root / 'fox').mkdir()


def mixed(root):
    folder(root)
    write(root / 'loose.png')


@pytest.mark.parametrize('make, message', [
    (broken, 'x.png cannot be read as an image'), (empty, 'fox is a class without an image'),
    (mixed, r'holds folders, which are classes \(cat\), and images beside them \(loose.png\)'),
    (lambda root: root.mkdir(), 'no image in'), (lambda root: None, 'there is no folder .*: data_root names')])
def test_what_cannot_be_meant_is_one_line(tmp_path, make, message):
    make(tmp_path / 'data')
    with pytest.raises((InputError, FileNotFoundError), match=message) as error:
        ImageFolder(str(tmp_path / 'data'), image_size=8)
    assert '\n' not in str(error.value)


def test_a_link_back_to_its_own_folder_is_not_followed(tmp_path):
    root = folder(tmp_path / 'data')
    (root / 'cat' / 'here').symlink_to('.')
    (root / 'cat' / 'all').symlink_to('..')
    write(tmp_path / 'elsewhere' / 'x.png')
    (root / 'dog' / 'more').symlink_to(tmp_path / 'elsewhere')
    assert [file for file in images_below(root / 'cat') if '/' in file] == []
    assert [file for file in images_below(root / 'dog') if '/' in file] == ['more/x.png']


def test_a_list_from_windows_and_one_with_other_numbers_for_labels(tmp_path):
    (tmp_path / 'list.txt').write_bytes('a.png 0\r\nb.png 1\r\n'.encode('utf-8-sig'))
    (tmp_path / 'classes.txt').write_bytes('cat\ndog\n'.encode('utf-8-sig'))
    listing = read_annotations(tmp_path / 'list.txt')
    assert listing.files == ['a.png', 'b.png'] and listing.classes == ('cat', 'dog')
    (tmp_path / 'classes.txt').write_text('cat\ncat\n')
    with pytest.raises(InputError, match="classes.txt names the class 'cat' twice"):
        read_annotations(tmp_path / 'list.txt')
    for label in ('20241128093000', '9' * 5000):         # the names of so many classes would fill the memory
        (tmp_path / 'list.txt').write_text(f'a.png 0\nb.png {label}\n')
        with pytest.raises(InputError, match='image 2: expected "path label"'):
            read_annotations(tmp_path / 'list.txt')


def test_lines_of_another_form_are_named(tmp_path):
    (tmp_path / 'list.txt').write_text('a.png 0\nb.png one\n')
    with pytest.raises(InputError, match='image 2: expected "path label"'):
        read_split(tmp_path / 'list.txt', 'train')


def test_windows_are_those_of_random_resized_crop():
    drawn = torch.rand(2000, 5, generator=torch.Generator().manual_seed(0))
    boxes = boxes_of(drawn, (0.25, 1.0), 0.5)
    area, ratio = boxes.height * boxes.width, boxes.width / boxes.height
    assert area.min() >= 0.25 - 1e-5 and area.mean().item() == pytest.approx(0.625, abs=0.02)
    assert ratio.min() >= 3 / 4 - 1e-5 and ratio.max() <= 4 / 3 + 1e-5 and ratio.log().mean().abs() < 0.02
    for start, side in ((boxes.top, boxes.height), (boxes.left, boxes.width)):
        assert start.min() >= 0 and (start + side).max() <= 1 + 1e-6
    assert boxes.flip.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_a_window_is_cut_out_scaled_and_mirrored():
    image = torch.from_numpy(np.random.default_rng(0).integers(256, size=(1, 3, 16, 16), dtype=np.uint8))
    values = torch.tensor([[0.25], [0.5], [0.5], [0.5]])
    for flip in (False, True):
        boxes = boxes_of(torch.zeros(1, 5), (1, 1), 0)._make([*values, torch.tensor([flip])])
        expected = torch.nn.functional.interpolate(image[..., 4:12, 8:16].float(), 16, mode='bilinear', align_corners=False)
        expected = expected.flip(3) if flip else expected
        found = crop_and_resize(image, boxes)
        inner = (..., slice(2, -2), slice(2, -2))        # at its border a window sees the pixels beside it
        assert (found[inner].float() - expected[inner]).abs().max() <= 0.51
