"""tools/predict.py on generated images: native small ones, odd ones and damaged ones, by students of every origin."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcrrcd.checkpoint import read_network
from mmcrrcd.datasets import downsample
from mmcrrcd.models.networks import extract
from mmcrrcd.registry import MODELS
from mmengine.config import Config
from PIL import Image
from tiny import CLASSES, MEAN, STD, STUDENT, config, crrcd, random_images, train, write_folder, write_teacher
from utils import tool

ROOT = Path(__file__).parents[2]
NAMES = [f'class{i}' for i in range(CLASSES)]


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory):
    """Of a student that saw 8 pixels, with its export."""
    folder = tmp_path_factory.mktemp('run')
    train(config(folder / 'student', crrcd(write_teacher(folder / 'teacher.pth')), epochs=1))
    tool('export_student.py', folder / 'student')
    return folder / 'student'


@pytest.fixture
def predict(work_dir, tmp_path):
    """The tool's JSON for an image or a folder."""
    def call(images, *options, config=None, checkpoint=work_dir) -> dict:
        out = tmp_path / 'made' / 'answers.json'
        tool('predict.py', images, config or next(work_dir.glob('*.py')), checkpoint, '--json', out, *options)
        return json.loads(out.read_text())

    return call


def probabilities(work_dir: Path, images: np.ndarray) -> torch.Tensor:
    """Of images (N, h, w, 3) uint8 as the network itself sees them, (N, CLASSES)."""
    network = MODELS.build(STUDENT).eval()
    network.load_state_dict(read_network(work_dir))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        return extract(network, (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).logits.softmax(1)


def of_all_classes(answer: dict) -> torch.Tensor:
    """Its probabilities in the order of the classes."""
    assert [each['name'] for each in answer['classes']] == [NAMES[each['label']] for each in answer['classes']]
    values = [each['probability'] for each in answer['classes']]
    assert values == sorted(values, reverse=True)
    return torch.tensor([each['probability'] for each in sorted(answer['classes'], key=lambda each: each['label'])])


def small(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize('which', ['work directory', 'file', 'exported', 'exported alone'])
def test_native_small_images_are_seen_as_they_are(work_dir, predict, tmp_path, which):
    images = np.stack([small(seed) for seed in range(5)])
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f'{i}.png')
    checkpoint = {'work directory': work_dir, 'file': work_dir / 'epoch_1.pth'}.get(which, work_dir / 'student')
    settings = work_dir / 'student' / 'student.py' if which == 'exported alone' else None
    result = predict(tmp_path, '--batch-size', 2, config=settings, checkpoint=checkpoint)
    assert [answer['file'] for answer in result['images']] == [str(tmp_path / f'{i}.png') for i in range(5)]
    assert result['unreadable'] == [] and result['resized_to'] == '8×8 px (bilinear, antialiased)'
    got = torch.stack([of_all_classes(answer) for answer in result['images']])
    torch.testing.assert_close(got, probabilities(work_dir, images), rtol=1e-4, atol=1e-6)


def test_images_of_the_training_s_size_get_the_answers_of_its_test(work_dir, predict, tmp_path):
    images, labels = random_images(seed=1)
    folder = write_folder(tmp_path / 'images', seed=1)
    result = predict(folder)
    reduced = downsample(torch.from_numpy(images).permute(0, 3, 1, 2), 8).permute(0, 2, 3, 1).numpy()
    expected = probabilities(work_dir, reduced)
    assert len(result['images']) == len(images)
    for answer in result['images']:
        i = int(Path(answer['file']).stem)
        assert Path(answer['file']).parent.name == f'class{labels[i]}'
        torch.testing.assert_close(of_all_classes(answer), expected[i], rtol=1e-4, atol=1e-6)


def test_any_mode_and_size_and_what_cannot_be_read(work_dir, predict, tmp_path, capsys):
    pixels = small(3)
    gray = np.repeat(pixels[..., :1], 3, axis=2)
    Image.fromarray(pixels).save(tmp_path / 'color.PNG')
    Image.fromarray(pixels[..., 0]).save(tmp_path / 'gray.png')
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(tmp_path / 'gray16.png')
    Image.fromarray(np.dstack([pixels, small(4)[..., 0]])).save(tmp_path / 'rgba.png')
    Image.fromarray(small(5, 5, 3)).save(tmp_path / 'below [size].png')
    Image.fromarray(small(6, 37, 91)).save(tmp_path / 'wide.png')
    Image.fromarray(small(7, 1, 1)).save(tmp_path / 'one_pixel.bmp')
    whole = tmp_path / 'color.PNG'
    (tmp_path / 'below').mkdir()
    (tmp_path / 'below' / 'cut.png').write_bytes(whole.read_bytes()[:-60])
    (tmp_path / 'no_image.jpg').write_text('text')
    (tmp_path / 'empty.gif').write_bytes(b'')
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / 'float.tif')
    (tmp_path / 'notes.txt').write_text('not looked at')
    result = predict(tmp_path)
    answers = {Path(answer['file']).name: of_all_classes(answer) for answer in result['images']}
    assert sorted(answers) == ['below [size].png', 'color.PNG', 'gray.png', 'gray16.png', 'one_pixel.bmp', 'rgba.png',
                               'wide.png']
    expected = probabilities(work_dir, np.stack([pixels, gray]))
    for name, row in (('color.PNG', 0), ('rgba.png', 0), ('gray.png', 1), ('gray16.png', 1)):
        torch.testing.assert_close(answers[name], expected[row], rtol=1e-4, atol=1e-6)
    wide = downsample(torch.from_numpy(small(6, 37, 91)).permute(2, 0, 1)[None], 8).permute(0, 2, 3, 1).numpy()
    torch.testing.assert_close(answers['wide.png'], probabilities(work_dir, wide)[0], rtol=1e-4, atol=1e-6)
    assert [Path(each['file']).name for each in result['unreadable']] == ['cut.png', 'empty.gif', 'float.tif', 'no_image.jpg']
    assert all(each['reason'] and '\n' not in each['reason'] for each in result['unreadable'])
    output = capsys.readouterr()
    assert '7 images classified, 4 unreadable; each resized to 8×8 px (bilinear, antialiased)' in output.out
    assert f'skipped {tmp_path / "float.tif"}: pixels of more than 16 bits' in output.err


def test_photographs_are_turned_upright(work_dir, predict, tmp_path):
    image = Image.fromarray(small(8))
    exif = Image.Exif()
    exif[0x0112] = 6                                     # to be turned by 90 degrees
    image.save(tmp_path / 'turned.png', exif=exif)
    answer, = predict(tmp_path / 'turned.png')['images']
    upright = np.ascontiguousarray(np.rot90(small(8), -1))
    torch.testing.assert_close(of_all_classes(answer), probabilities(work_dir, upright[None])[0], rtol=1e-4, atol=1e-6)


def test_table_of_the_best_classes(work_dir, tmp_path, monkeypatch, capsys):
    Image.fromarray(small(1)).save(tmp_path / 'a [b].png')
    monkeypatch.setenv('COLUMNS', '200')
    own = next(work_dir.glob('*.py'))
    tool('predict.py', tmp_path / 'a [b].png', own, work_dir, '--topk', 2)
    output = capsys.readouterr().out
    best, next_best = probabilities(work_dir, small(1)[None])[0].topk(2).indices.tolist()
    row = next(line for line in output.splitlines() if 'a [b].png' in line)
    assert f'class{best}' in row.split('│')[2] and f'class{next_best} ' in row.split('│')[4]
    assert '1 images classified, 0 unreadable' in output
    (tmp_path / 'cats').mkdir()
    (tmp_path / 'a [b].png').rename(tmp_path / 'cats' / 'a.png')
    tool('predict.py', tmp_path, own, work_dir, '--topk', 1)
    output = capsys.readouterr().out
    assert 'next' not in output and '│ cats/a.png ' in output


def test_restoring_and_other_settings_of_the_training(work_dir, predict, tmp_path):
    cfg = Config.fromfile(next(work_dir.glob('*.py')))
    cfg.model.data_preprocessor.update(upsample=True, interpolation='nearest')
    cfg.dump(tmp_path / 'config.py')
    images = np.stack([small(1, 16, 16)])
    Image.fromarray(images[0]).save(tmp_path / 'image.png')
    result = predict(tmp_path / 'image.png', config=tmp_path / 'config.py')
    assert result['resized_to'] == '8×8 px, then to 16×16 px (nearest)'
    seen = downsample(torch.from_numpy(images).permute(0, 3, 1, 2), 8, 'nearest', upsample=True).permute(0, 2, 3, 1)
    torch.testing.assert_close(of_all_classes(result['images'][0]), probabilities(work_dir, seen.numpy())[0],
                               rtol=1e-4, atol=1e-6)


def test_another_resolution(work_dir, predict, tmp_path):
    images = np.stack([small(1, 12, 12)])
    Image.fromarray(images[0]).save(tmp_path / 'image.png')
    answer, = predict(tmp_path / 'image.png', '--resolution', 12)['images']
    torch.testing.assert_close(of_all_classes(answer), probabilities(work_dir, images)[0], rtol=1e-4, atol=1e-6)


def test_of_several_resolutions_an_image_is_seen_at_the_nearest(work_dir, predict, tmp_path):
    cfg = Config.fromfile(next(work_dir.glob('*.py')))
    cfg.model.data_preprocessor.train_resolutions = [8, 12, 16]
    cfg.dump(tmp_path / 'config.py')
    images = {'a': small(1), 'b': small(2, 11, 13), 'c': small(3, 40, 40), 'd': small(4, 6, 14), 'e': small(5, 16, 16)}
    (tmp_path / 'images').mkdir()
    for name, image in images.items():
        Image.fromarray(image).save(tmp_path / 'images' / f'{name}.png')
    result = predict(tmp_path / 'images', config=tmp_path / 'config.py')
    assert result['resized_to'] == 'the nearest of 8×8, 12×12, 16×16 px (bilinear, antialiased)'
    assert [Path(answer['file']).stem for answer in result['images']] == list(images)
    assert [answer['pixels'] for answer in result['images']] == [[side, side] for side in (8, 12, 16, 8, 16)]
    for answer, image, (side, _) in zip(result['images'], images.values(), [answer['pixels'] for answer in result['images']]):
        seen = downsample(torch.from_numpy(image).permute(2, 0, 1)[None], side).permute(0, 2, 3, 1).numpy()
        torch.testing.assert_close(of_all_classes(answer), probabilities(work_dir, seen)[0], rtol=1e-4, atol=1e-6)
    cfg.model.data_preprocessor.upsample = True
    cfg.dump(tmp_path / 'upsampled.py')
    upsampled = predict(tmp_path / 'images', config=tmp_path / 'upsampled.py')['images']
    seen = downsample(downsample(torch.from_numpy(images['b']).permute(2, 0, 1)[None], 12), 16)
    torch.testing.assert_close(of_all_classes(upsampled[1]), probabilities(work_dir, seen.permute(0, 2, 3, 1).numpy())[0],
                               rtol=1e-4, atol=1e-6)
    one = predict(tmp_path / 'images', '--resolution', 12, config=tmp_path / 'config.py')
    assert {tuple(answer['pixels']) for answer in one['images']} == {(12, 12)}


def test_an_unfinished_training_is_refused(work_dir, tmp_path):
    Image.fromarray(small(1)).save(tmp_path / 'image.png')
    weights = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    weights['message_hub']['runtime_info'] |= dict(max_epochs=3, max_iters=3 * weights['meta']['iter'])
    (tmp_path / 'run').mkdir()
    torch.save(weights, tmp_path / 'run' / 'epoch_1.pth')
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(tmp_path / 'run' / 'epoch_1.pth'))
    with pytest.raises(SystemExit, match='training stopped after epoch 1 of 3'):
        tool('predict.py', tmp_path / 'image.png', next(work_dir.glob('*.py')), tmp_path / 'run')


def test_classes_without_names_have_numbers(work_dir, tmp_path):
    torch.save(read_network(work_dir), tmp_path / 'bare.pth')
    Image.fromarray(small(1)).save(tmp_path / 'image.png')
    out = tmp_path / 'answers.json'
    tool('predict.py', tmp_path / 'image.png', next(work_dir.glob('*.py')), tmp_path / 'bare.pth', '--json', out)
    classes = json.loads(out.read_text())['images'][0]['classes']
    assert all(each['name'] == str(each['label']) for each in classes) and len(classes) == CLASSES


@pytest.mark.parametrize('args, message', [
    (['nowhere.png'], 'there is no image or folder nowhere.png'),
    (['empty'], 'no image in empty (looked for .bmp, '),
    (['bad.png'], 'no image of bad.png can be read'),
    (['good.png', '--topk', '0'], '--topk is at least 1, got 0'),
    (['good.png', '--batch-size', '-1'], '--batch-size is at least 1, got -1'),
    (['good.png', '--resolution', '0'], '--resolution is at least 1, got 0'),
])
def test_bad_input_is_one_line(work_dir, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'bad.png').write_text('no image')
    Image.fromarray(small(1)).save(tmp_path / 'good.png')
    image, *options = args
    with pytest.raises(SystemExit) as error:
        tool('predict.py', image, next(work_dir.glob('*.py')), work_dir, *options)
    assert str(error.value).startswith(f'error: {message}') and '\n' not in str(error.value)
