"""What networks are asked after their training: small images, faces, and a second training before that."""
import json
from pathlib import Path

import pytest
from mmengine.config import Config
from test_tools.test_face_tools import face, write, write_lfw, write_tinyface
from tiny_table import composed

import tiny
from experiments import compose, evaluate, worker
from experiments.__main__ import main
from experiments.tables import DOWNSAMPLINGS, TABLES, Table
from mmcrrcd.evaluation.classifier import load_classifier
from mmcrrcd.evaluation.embeddings import accuracy


def test_small_images_are_tested_after_every_downsampling(work, monkeypatch):
    columns = {name: name for name in DOWNSAMPLINGS} | {'16 px': 'full', 'M MACs': 'macs', 'minutes': 'minutes'}
    monkeypatch.setitem(TABLES, 'tiny', Table(
        'Small', [('big', 'small')], ['teacher', 'student', 'kd', 'crrcd'], composed, columns=columns,
        evaluation='downsampling', arguments=dict(side=16), resolution=8))
    main(['tiny', '--seeds', '1', '--cell', 'teacher/big_small', 'kd/big_small'])
    student, teacher = (json.loads(Path(f'records/tiny/{name}__8px__cifar_240e__s5.json').read_text())
                        for name in ('kd__big_small', 'teacher__big'))
    data = tiny.TinyImages(seed=1)
    network = load_classifier('work_dirs/experiments/cifar100/kd__big_small__8px__cifar_240e__s5/config.py',
                              'work_dirs/experiments/cifar100/kd__big_small__8px__cifar_240e__s5')
    for name, how in DOWNSAMPLINGS.items():
        assert student['results'][name] == pytest.approx(accuracy(network.at(8, None, **how), data, name), abs=1e-3)
    own = load_classifier('work_dirs/experiments/cifar100/teacher__big__8px__cifar_240e__s5/config.py', 'teacher.pth')
    assert teacher['results']['area'] == pytest.approx(
        accuracy(own.at(8, 16, interpolation='area', antialias=True), data, 'area'), abs=1e-3)
    assert teacher['results']['full'] == pytest.approx(accuracy(own, data, 'full'), abs=1e-3)
    assert student['results']['images'] == dict(train=tiny.IMAGES, test=tiny.IMAGES)
    assert teacher['results']['macs'] > 3.5 * student['results']['macs']          # 16 pixels a side beside 8
    assert f'| KD | {student["results"]["bilinear, antialiased"]:.2f} (n = 1) |' in Path('records/tiny.md').read_text()


@pytest.fixture
def trained(work):
    """The folder of a training."""
    cfg = compose.paired(composed('crrcd', ('big', 'small'), compose.Recipe(epochs=1)), 5)
    folder = work / 'run'
    folder.mkdir()
    cfg.dump(folder / 'config.py')
    worker.train(folder, cfg)
    return folder


def test_embeddings(trained):
    """Among the training images a training image is nearest to itself."""
    network = load_classifier(str(trained / 'config.py'), str(trained))
    found = evaluate.embedded(network, str(trained / 'config.py'), {})
    assert set(found) == {'probe', 'neighbors', 'rank-1', 'mAP'} and all(0 <= value <= 100 for value in found.values())
    cfg = Config.fromfile(trained / 'config.py')
    cfg.test_dataloader = cfg.val_dataloader = cfg.train_dataloader
    cfg.dump(trained / 'same.py')
    same = evaluate.embedded(network, str(trained / 'same.py'), {})
    assert same['rank-1'] == 100 > found['rank-1'] and same['probe'] >= found['probe'] and same['mAP'] > found['mAP']


def test_faces(trained, work):
    folder = trained
    write_lfw(work)
    write_tinyface(work / 'tinyface')
    for person in range(1, 41):
        for number in range(1, 11):
            write(work / 'orl' / f's{person}' / f'{number}.pgm', face(person, number, 12)[..., 0])
    network, about = load_classifier(str(folder / 'config.py'), str(folder)), {}
    found = evaluate.verified(network, '', about, 'pairs.txt', 'faces', [0, 2])
    assert found['pairs'] == 20 and len(found['accuracies']) == 2 and 0 <= found['eer'] <= 100
    found = evaluate.identified(network, '', about, orl='orl')
    assert found['probes'] == 360 and found['searched'] == 40 and found['rank-1'] <= found['rank-10'] <= found['rank-20'] <= 100
    found = evaluate.identified(network, '', about, tinyface='tinyface')
    assert found['probes'] == 6 and found['searched'] == 12 + 7


def test_a_second_training_goes_on_from_the_first(work, monkeypatch):
    """By the config of another; what is tested is the second network."""
    monkeypatch.setattr(worker, 'further', lambda config, cfg, checkpoint: other(cfg, checkpoint))
    monkeypatch.setitem(TABLES, 'tiny', TABLES['tiny']._replace(further='face/then'))
    main(['tiny', '--cell', 'kd/big_small', '--seeds', '1'])
    found = json.loads(Path('records/tiny/kd__big_small__cifar_240e__s5.json').read_text())
    assert 'epoch_2.pth' in found['further']['config'] and found['further']['seconds']['step'] > 0
    assert Path('work_dirs/experiments/tiny/kd__big_small__cifar_240e__s5/then/epoch_1.pth').exists()


def other(cfg, checkpoint):
    new = composed('student', ('big', 'small'), compose.Recipe(epochs=1))
    new.model.student = cfg.model.student | dict(init_cfg=dict(type='Pretrained', checkpoint=str(checkpoint), prefix='student'))
    return new
