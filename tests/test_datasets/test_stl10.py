"""STL-10 from files in the official form: planes of color, by columns; labels from 1; folds as lines of positions."""
import numpy as np
import pytest
import torch
from mmcrrcd.datasets import STL10Arrays, stl10
from mmcrrcd.errors import InputError
from mmcrrcd.models import CRRCD
from tiny import BATCH, STUDENT, TEACHER
from torchvision.datasets import STL10

COUNTS = {'train': 20, 'test': 6, 'unlabeled': 9}
NAMES = 'airplane bird car cat deer dog horse monkey ship truck'.split()


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The folder of the data, and images (N, 96, 96, 3) of each split."""
    monkeypatch.setattr(stl10, 'COUNTS', COUNTS)
    folder = tmp_path / 'stl10_binary'
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = {split: rng.integers(256, size=(number, 96, 96, 3), dtype=np.uint8) for split, number in COUNTS.items()}
    for split, pixels in images.items():
        (folder / f'{split}_X.bin').write_bytes(pixels.transpose(0, 3, 2, 1).tobytes())
        if split != 'unlabeled':
            (folder / f'{split}_y.bin').write_bytes(bytes(1 + i % 10 for i in range(len(pixels))))
    (folder / 'class_names.txt').write_text('\n'.join(NAMES) + '\n')
    (folder / 'fold_indices.txt').write_text(''.join(f'{fold} {19 - fold} {fold + 5} \n' for fold in range(10)))
    return folder, images


@pytest.mark.parametrize('split', ('train', 'test'))
def test_images_are_upright_and_labels_begin_at_zero(files, split):
    folder, images = files
    dataset = STL10Arrays(folder.parent, split, download=False)
    assert np.array_equal(dataset.images.numpy(), images[split])
    assert dataset.labels.tolist() == [i % 10 for i in range(COUNTS[split])]
    assert dataset.metainfo['classes'] == tuple(NAMES)


def test_torchvision_reads_the_same(files, monkeypatch):
    folder, _ = files
    monkeypatch.setattr(STL10, '_check_integrity', lambda self: True)
    theirs, ours = STL10(folder.parent, 'train', folds=4), STL10Arrays(folder.parent, fold=4, download=False)
    assert np.array_equal(ours.images.numpy(), theirs.data.transpose(0, 2, 3, 1))
    assert ours.labels.tolist() == theirs.labels.tolist()


def test_folds_are_parts_of_the_training_split(files):
    folder, images = files
    for fold in (0, 9):
        dataset = STL10Arrays(folder.parent, fold=fold, download=False)
        index = [fold, 19 - fold, fold + 5]
        assert np.array_equal(dataset.images.numpy(), images['train'][index])
        assert dataset.labels.tolist() == [i % 10 for i in index]


def test_images_without_labels(files):
    folder, images = files
    dataset = STL10Arrays(folder.parent, 'unlabeled', download=False)
    assert np.array_equal(dataset.images.numpy(), images['unlabeled'])
    assert dataset.labels.tolist() == [-100] * 9
    both = STL10Arrays(folder.parent, 'train+unlabeled', download=False)
    assert np.array_equal(both.images.numpy(), np.concatenate([images['train'], images['unlabeled']]))
    assert both.labels.tolist() == [i % 10 for i in range(20)] + [-100] * 9


def test_a_student_learns_from_images_without_labels(files):
    """The classification loss is that of the labeled ones, over the batch; KD and the relational loss count all."""
    folder, _ = files
    dataset = STL10Arrays(folder.parent, 'train+unlabeled', download=False)
    heads = [network['head'] | dict(num_classes=10) for network in (STUDENT, TEACHER)]
    torch.manual_seed(0)
    model = CRRCD(
        student=STUDENT | dict(head=heads[0]), teacher=TEACHER | dict(head=heads[1]), input_size=96, sampling='unsupervised',
        num_negatives=BATCH, dim=8,
        data_preprocessor=dict(type='mmcrrcd.PairPreprocessor', mean=[127.] * 3, std=[64.] * 3, resolution=24))
    model.init_weights()
    batch = dataset.__getitems__([3, 8, 25, 20, 7, 28, 22, 21])
    model.eval()
    model(**model.data_preprocessor(batch, training=True), mode='loss')                       # fills the queue
    data = model.data_preprocessor(batch, training=True)
    parts = model(**data, mode='loss')
    logits = model.student(data['inputs'].low, mode='tensor')
    known = torch.tensor([0, 1, 4])
    expected = -logits.log_softmax(1)[known, batch['labels'][known]].sum() / 8
    torch.testing.assert_close(parts['loss_cls'], expected)
    assert parts['loss_kd'] > 0 and parts['loss_rcd'] > 0 and sum(parts.values()).isfinite()


@pytest.mark.parametrize('name, content, message', [
    ('train_X.bin', b'\0' * 100, 'train_X.bin: expected 552960 bytes, got 100; delete {folder} to download it again'),
    ('train_y.bin', b'\1' * 19, 'train_y.bin: expected 20 bytes, got 19; delete {folder} to download it again'),
    ('train_y.bin', b'\0' * 20, '(train): labels go from -1 to -1, but there are 10 classes'),
    ('train_y.bin', b'\13' * 20, '(train): labels go from 10 to 10, but there are 10 classes'),
    ('class_names.txt', b'airplane\nbird\n', 'class_names.txt: expected 10 lines, got 2'),
    ('fold_indices.txt', b'1 2\n' * 9, 'fold_indices.txt: expected 10 lines, got 9'),
    ('fold_indices.txt', b'1 20\n' * 10, 'fold_indices.txt: line 3 is not a list of positions below 20'),
    ('fold_indices.txt', b'1 x\n' * 10, 'fold_indices.txt: line 3 is not a list of positions below 20'),
    ('fold_indices.txt', b'\n' * 10, 'fold_indices.txt: line 3 is not a list of positions below 20'),
    ('fold_indices.txt', b'\xff\n' * 10, 'fold_indices.txt is not a text file'),
])
def test_damaged_files_end_in_one_line(files, name, content, message):
    folder, _ = files
    (folder / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        STL10Arrays(folder.parent, fold=2 if 'fold' in name else None, download=False)
    assert str(error.value).startswith(str(folder)) and str(error.value).endswith(message.format(folder=folder))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ('train_X.bin', 'train_y.bin', 'class_names.txt', 'fold_indices.txt'))
def test_missing_files_are_named(files, name):
    folder, _ = files
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError) as error:
        STL10Arrays(folder.parent, fold=0)
    assert str(error.value) == f'{folder / name} is missing; delete {folder} to download it again'


def test_missing_folder_names_the_archive(tmp_path):
    with pytest.raises(FileNotFoundError, match='stl10_binary is missing; set download=True, or unpack http.*tar.gz into'):
        STL10Arrays(tmp_path, download=False)


@pytest.mark.parametrize('settings, message', [
    (dict(split='val'), "split is one of 'train', 'test', 'unlabeled', 'train+unlabeled', got 'val'"),
    (dict(fold=10), "fold is a number from 0 to 9, of split='train'; got 10 of 'train'"),
    (dict(split='test', fold=1), "fold is a number from 0 to 9, of split='train'; got 1 of 'test'"),
])
def test_settings_that_cannot_work(tmp_path, settings, message):
    with pytest.raises(InputError) as error:
        STL10Arrays(tmp_path, **settings)
    assert str(error.value) == message
