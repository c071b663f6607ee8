"""What the tools say of an error that the input caused."""
import pytest
from tiny import config, crrcd, pipeline_loader, train, write_folder, write_teacher

from mmcrrcd.engine.launch import one_line_errors


@pytest.mark.parametrize('workers', [0, 1])
def test_an_image_that_mmpretrain_cannot_read_is_named(tmp_path, workers):
    files = write_folder(tmp_path / 'images', seed=0)
    damaged = files / 'class1' / '005.png'
    damaged.write_bytes(damaged.read_bytes()[:30])
    loader = pipeline_loader(files, training=True, workers=workers)
    cfg = config(tmp_path / 'run', crrcd(write_teacher(tmp_path / 'teacher.pth')), epochs=1, train_dataloader=loader)
    with pytest.raises(SystemExit) as error, one_line_errors():
        train(cfg)
    assert str(error.value) == f'error: {damaged} cannot be read as an image'


def test_other_failed_assertions_keep_their_traceback():
    with pytest.raises(AssertionError, match='a bug'), one_line_errors():
        raise AssertionError('a bug')
