"""The exported student in plain mmpretrain, and tools/test.py, which takes checkpoints of every kind."""
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tiny import CLASSES, MEAN, STD, STUDENT, TinyImages, config, crrcd, pipeline_loader, train, write_folder, write_teacher
from utils import tool

from mmcrrcd.checkpoint import read_network
from mmcrrcd.config import short_types
from mmcrrcd.datasets import downsample
from mmcrrcd.deployment.student_files import test_images as images_of_test
from mmcrrcd.deployment.student_files import training_config
from mmcrrcd.errors import InputError
from mmcrrcd.registry import MODELS

ROOT = Path(__file__).parents[2]


STOCK_NETWORK = dict(type='ImageClassifier', neck=dict(type='GlobalAveragePooling'),
                     backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=8, base_channels=8),
                     head=dict(type='LinearClsHead', num_classes=CLASSES, in_channels=64))

IN_MMPRETRAIN = """
import json, runpy, sys
from pathlib import Path
import mmpretrain
from mmpretrain.apis import ImageClassificationInferencer, get_model

image, small, data_root, out, *folders = sys.argv[1:]
tools = Path(mmpretrain.__file__).parent / '.mim' / 'tools'

def run(tool, *args):
    sys.argv = [tool, *args]
    runpy.run_path(str(tools / tool), run_name='__main__')

for folder in folders:
    config, weights, metrics = folder + '/student.py', folder + '/student.pth', folder + '/metrics.json'
    inferencer = ImageClassificationInferencer(get_model(config, pretrained=weights))
    answer, native = inferencer(image)[0], inferencer(small)[0]
    run('analysis_tools/get_flops.py', config, '--shape', '8')
    run('test.py', config, weights, '--work-dir', folder + '/run', '--out', metrics, '--out-item', 'metrics',
        '--cfg-options', 'test_dataloader.dataset.data_root=' + data_root)
    with open(out, 'a') as file:
        print(json.dumps(dict(scores=answer['pred_scores'].tolist(), native=native['pred_scores'].tolist(),
                              name=answer['pred_class'], accuracy=json.load(open(metrics))['accuracy/top1'],
                              own='mmcrrcd' in sys.modules)), file=file)
"""


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """A run on arrays with a backbone of this package, and one on files with a network of mmpretrain: (runner, folder)."""
    folder = tmp_path_factory.mktemp('runs')
    teacher = write_teacher(folder / 'teacher.pth')
    files = write_folder(folder / 'images', seed=1)
    arrays = train(config(folder / 'arrays', crrcd(teacher, resolution=8), epochs=2))
    loader = pipeline_loader(files, training=False)
    loader['dataset']['pipeline'] = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    model = crrcd(teacher, resolution=None) | dict(student=STOCK_NETWORK)
    model['data_preprocessor']['to_rgb'] = True
    accuracy = dict(type='Accuracy', topk=(1, ))
    piped = train(config(folder / 'files', model, epochs=2, train_dataloader=loader, val_dataloader=loader,
                         test_dataloader=loader, val_evaluator=accuracy, test_evaluator=accuracy))
    return dict(arrays=arrays, files=piped, folder=folder, images=files)


@pytest.fixture(scope='module')
def exported(runs):
    for name in ('arrays', 'files'):
        tool('export_student.py', runs['folder'] / name)
    return runs


@pytest.fixture(scope='module')
def answers(exported):
    """What mmpretrain says in a fresh interpreter; first of the network that needs nothing of this package."""
    folder = exported['folder']
    names = ('files', 'arrays')
    small = np.random.default_rng(9).integers(256, size=(8, 8, 3), dtype=np.uint8)
    Image.fromarray(small).save(folder / 'small.png')
    result = subprocess.run([sys.executable, '-c', IN_MMPRETRAIN, exported['images'] / 'class2' / '006.png',
                             folder / 'small.png', exported['images'], folder / 'answers',
                             *(folder / name / 'student' for name in names)], cwd=folder,
                            capture_output=True, text=True, env=os.environ | dict(OMP_NUM_THREADS='1'))
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count('Flops:') == len(names)
    return dict(zip(names, map(json.loads, (folder / 'answers').read_text().splitlines())))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['arrays', 'files'])
def test_mmpretrain_gives_the_same_logits_and_accuracy(exported, answers, name):
    """Equal: the images (bit for bit, ResolutionPair is in the pipeline), the weights; logits up to rounding."""
    runner, theirs, image = exported[name], answers[name], exported['images'] / 'class2' / '006.png'
    pixels = torch.from_numpy(np.array(Image.open(image))).permute(2, 0, 1)[None]
    if name == 'arrays':
        assert torch.equal(pixels, TinyImages(seed=1)[6]['inputs'])
        pixels = downsample(pixels, 8)
    native = torch.from_numpy(np.array(Image.open(exported['folder'] / 'small.png'))).permute(2, 0, 1)[None]
    student = runner.model.student.eval()
    with torch.no_grad():
        logits, of_native = (student.head(student.extract_feat((seen - torch.tensor(MEAN).view(3, 1, 1))
                                                               / torch.tensor(STD).view(3, 1, 1))) for seen in (pixels, native))
    torch.testing.assert_close(torch.tensor(theirs['native']), of_native.softmax(1)[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.tensor(theirs['scores']), logits.softmax(1)[0], rtol=1e-4, atol=1e-6)
    assert theirs['name'] == f'class{int(logits.argmax())}'
    assert theirs['accuracy'] == pytest.approx(runner.message_hub.get_scalar('val/accuracy/top1').current())
    assert theirs['own'] == (name == 'arrays')           # a network of mmpretrain needs nothing of this package


@pytest.mark.parametrize('dataset, why', [
    (dict(type='CustomDataset', ann_file='http://127.0.0.1:9/list.txt'), 'its data are at an address'),
    (dict(type='MNIST', data_root='none', split='test'), None), (dict(type='ConcatDataset', datasets=[
        dict(type='CIFAR10', data_root='none', split='test', pipeline=[])]), None)])
def test_nothing_is_fetched_for_data_that_a_foreign_config_names(runs, tmp_path, monkeypatch, dataset, why):
    monkeypatch.setattr('socket.socket.connect', lambda *_: pytest.fail('it was fetched'))
    cfg = Config.fromfile(next((runs['folder'] / 'files').glob('*.py')))
    cfg.test_dataloader.dataset = dict(dataset, pipeline=[]) if 'datasets' not in dataset else dataset
    cfg.dump(tmp_path / 'run.py')
    read = partial(training_config, None, tmp_path / 'epoch_1.pth')
    with pytest.raises(InputError, match=why or 'the test images of .* cannot be read'):
        read() if why else images_of_test(read())


def test_exported_config_says_what_it_needs(exported):
    arrays, files = (Config.fromfile(exported['folder'] / name / 'student' / 'student.py') for name in ('arrays', 'files'))
    assert arrays.model.backbone == dict(STUDENT['backbone'], widths=list(STUDENT['backbone']['widths']))
    assert arrays.data_preprocessor == dict(type='ClsDataPreprocessor', mean=MEAN, std=STD, to_rgb=True)
    assert arrays.test_dataloader.dataset.pipeline == [
        dict(type='LoadImageFromFile'), dict(type='mmcrrcd.StudentView', resolution=8, image_size=16), dict(type='PackInputs')]
    assert 'mmcrrcd' not in files.pretty_text
    weights = torch.load(exported['folder'] / 'files' / 'student' / 'student.pth', weights_only=True)
    assert {key.split('.')[0] for key in weights['state_dict']} == {'backbone', 'head'}
    assert weights['meta']['dataset_meta']['classes']


def test_a_student_for_several_resolutions_is_exported_for_one(runs, tmp_path):
    """With its weights, and the batch norm statistics of training images at that resolution."""
    cfg = Config.fromfile(next((runs['folder'] / 'arrays').glob('*.py')))
    cfg.model.data_preprocessor.update(train_resolutions=[8, 12], padding=None, flip=0)
    checkpoint = runs['folder'] / 'arrays' / 'epoch_2.pth'
    trained = torch.load(checkpoint, weights_only=True)['state_dict']
    for side in (8, 12):
        out = tmp_path / str(side)
        cfg.dump(tmp_path / 'config.py')
        options = ['--config', tmp_path / 'config.py', '--resolution', side, '--out', out]
        tool('export_student.py', checkpoint, *options)
        weights = torch.load(out / 'student.pth', weights_only=True)['state_dict']
        assert all(torch.equal(weights[key], trained[f'student.{key}']) for key in weights
                   if not key.endswith(('running_mean', 'running_var', 'num_batches_tracked')))
        network = MODELS.build(STUDENT)
        network.load_state_dict(weights)
        norm, seen = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)), []
        norm.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        images = downsample(TinyImages(seed=0).__getitems__(torch.arange(24))['inputs'], side)
        with torch.no_grad():
            network.eval()((images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1))
        mean, var = seen[0].mean((0, 2, 3)), seen[0].var((0, 2, 3))
        assert seen[0].shape[2] == side
        assert ((norm.running_mean - mean).abs() < 0.05 * var.sqrt()).all()              # 10,000 draws of these images
        torch.testing.assert_close(norm.running_var, var, rtol=0.05, atol=0)
        pipeline = Config.fromfile(out / 'student.py').test_dataloader.dataset.pipeline
        assert pipeline[1] == dict(type='mmcrrcd.StudentView', resolution=side, image_size=16)
        data = cfg.train_dataloader.dataset              # as a training with a teacher cache leaves them
        cfg.train_dataloader.dataset = dict(type='mmcrrcd.ReplayedViews', dataset=data, views=2, seed=0)
    with pytest.raises(SystemExit, match='trains at one resolution: batch norm has the statistics of that already'):
        tool('export_student.py', runs['folder'] / 'arrays', '--resolution', 8, '--out', tmp_path / 'no')


def test_types_of_a_python_config_become_names():
    student = Config.fromfile(ROOT / 'configs' / 'crrcd' / 'resnet56_resnet20_cifar100.py').model.student
    assert short_types(student.to_dict()) == dict(
        type='ImageClassifier', backbone=dict(type='mmcrrcd.ResNetCIFAR', depth=20), neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=100, in_channels=64, init_cfg=None))
    assert short_types(dict(type='torch.optim.SGD', lr=1)) == dict(type='torch.optim.sgd.SGD', lr=1)
    assert short_types(dict(type='Normal', layer='Linear')) == dict(type='Normal', layer='Linear')


@pytest.mark.parametrize('what', ['work directory', 'file', 'exported', 'mmpretrain'])
def test_test_tool_takes_checkpoints_of_every_kind(exported, tmp_path, capsys, what):
    work_dir = exported['folder'] / 'arrays'
    checkpoint = {'work directory': work_dir, 'file': work_dir / 'epoch_2.pth',
                  'exported': work_dir / 'student' / 'student.pth', 'mmpretrain': tmp_path / 'bare.pth'}[what]
    if what == 'mmpretrain':
        network = MODELS.build(STUDENT)
        network.load_state_dict(read_network(work_dir))
        torch.save(dict(state_dict=network.state_dict()), checkpoint)
    cfg = Config.fromfile(next(work_dir.glob('*.py')))
    cfg.model.teacher_checkpoint = 'nowhere.pth'         # a test needs no teacher
    cfg.experiment_name = what
    cfg.dump(tmp_path / 'config.py')
    out = tmp_path / 'a' / 'new' / 'results.json'
    tool('test.py', tmp_path / 'config.py', checkpoint, '--out', out, '--work-dir', tmp_path / 'test')
    expected = exported['arrays'].message_hub.get_scalar('val/accuracy/top1').current()
    assert json.loads(out.read_text()) == {'accuracy/top1': expected}
    assert capsys.readouterr().out.splitlines()[-1] == f'accuracy/top1 {expected:.2f}'


@pytest.mark.parametrize('name, args, message', [
    ('test.py', ['config.py', 'nothing.pth'], 'no checkpoint at nothing.pth'),
    ('test.py', ['nothing.py', 'bare.pth'], 'there is no config nothing.py'),
    ('test.py', ['config.py', 'bare.pth'], 'bare.pth is not a checkpoint of this student: '),
    ('export_student.py', ['nothing'], 'no checkpoint at nothing'),
    ('export_student.py', ['bare.pth', '--config', 'config.py'], 'bare.pth is not a checkpoint of this student: '),
])
def test_bad_input_is_one_line(runs, tmp_path, monkeypatch, name, args, message):
    monkeypatch.chdir(tmp_path)
    Config.fromfile(next((runs['folder'] / 'arrays').glob('*.py'))).dump(tmp_path / 'config.py')
    torch.save(MODELS.build(STOCK_NETWORK | dict(type='mmpretrain.ImageClassifier', neck=None, head=None,
                                                 backbone=dict(type='mmpretrain.LeNet5'))).state_dict(), tmp_path / 'bare.pth')
    with pytest.raises(SystemExit) as error:
        tool(name, *args)
    assert str(error.value).startswith(f'error: {message}') and '\n' not in str(error.value)


@pytest.mark.parametrize('name, keys', [
    ('test.py', ['test_dataloader']), ('test.py', ['test_evaluator']), ('test.py', ['test_cfg']),
    ('export_student.py', ['test_dataloader', 'train_dataloader', 'val_dataloader'])])
def test_a_config_without_a_test_is_one_line(runs, tmp_path, name, keys):
    cfg = Config.fromfile(next((runs['folder'] / 'arrays').glob('*.py')))
    for key in keys:
        cfg[key] = None
    cfg.dump(tmp_path / 'config.py')
    checkpoint = runs['folder'] / 'arrays' / 'epoch_2.pth'
    args = [tmp_path / 'config.py', checkpoint] if name == 'test.py' else [checkpoint, '--config', tmp_path / 'config.py',
                                                                                        '--out', tmp_path / 'out']
    with pytest.raises(SystemExit) as error:
        tool(name, *args)
    assert f'{keys[0]}' in str(error.value) and str(error.value).startswith('error: ') and '\n' not in str(error.value)
