"""The tool finds the settings by which images were made, from other images."""
import numpy as np
import pytest
import torch
from mmcrrcd.datasets import downsample
from mmcrrcd.evaluation.camera import match_camera
from PIL import Image

from tools import match_camera as tool


def photos(seed: int, number: int) -> np.ndarray:
    """(N, 48, 48, 3) uint8: shapes with edges, textures and shades, of natural images' 1/f spectrum."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(48)[:, None], np.fft.fftfreq(48)) + 1 / 48
    noise = np.fft.fft2(rng.normal(size=(number, 3, 48, 48)) + rng.normal(size=(number, 1, 48, 48)) * 2)
    images = np.fft.ifft2(noise / frequency).real
    images = 128 + 45 * images / images.std((1, 2, 3), keepdims=True)
    edges = rng.random((number, 1, 48, 1)) < 0.5
    return np.where(edges, images, images + 20).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@pytest.mark.parametrize('how', [
    dict(interpolation='bilinear', antialias=False, noise=10.0), dict(interpolation='bilinear', antialias=True, blur=1.0),
    dict(interpolation='bicubic', antialias=True, jpeg=40)], ids=str)
def test_it_names_how_images_of_other_things_were_made(how):
    small = downsample(tensor(photos(1, 60)), 16, **how, seed=3).permute(0, 2, 3, 1).numpy()
    best = match_camera(tensor(photos(2, 60)), small, 16)[0].how
    names = ('blur', 'jpeg') if 'jpeg' in how else ('blur', 'noise', 'jpeg', 'interpolation')    # JPEG rounds noise away
    assert [best.get(name) for name in names] == [how.get(name) for name in names]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('mmcrrcd.evaluation.camera.NOISES', (0.0, ))
    monkeypatch.setattr('mmcrrcd.evaluation.camera.SAMPLINGS', (dict(interpolation='bilinear', antialias=True), ))
    for name, seed in (('my_images', 2), ('camera', 1)):
        images = photos(seed, 60)
        if name == 'camera':
            images = downsample(tensor(images), 16, antialias=True, jpeg=40).permute(0, 2, 3, 1).numpy()
        for i, image in enumerate(images):
            path = tmp_path / name / ('' if name == 'camera' else f'class{i % 2}') / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return tmp_path


def test_the_command_ends_with_the_settings_to_add(project, capsys):
    options = ['--cfg-options', 'data_root=my_images']
    tool.main(['mmcrrcd::custom/student_16px.py', 'camera', *options])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith('nearest to the 60 images in camera: --cfg-options model.data_preprocessor.antialias=')
    assert 'model.data_preprocessor.jpeg=40' in last
    with pytest.raises(SystemExit, match='the images in my_images are not natively small, as one of 48×48 px'):
        tool.main(['mmcrrcd::custom/student_16px.py', 'my_images', *options])
    with pytest.raises(SystemExit, match='has no model.data_preprocessor.resolution'):
        tool.main(['mmcrrcd::custom/teacher_64px.py', 'camera', *options])
