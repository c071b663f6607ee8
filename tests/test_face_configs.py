"""The configs of configs/face: form, data, what differs between them, and a step on made faces in folders."""
import re
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcrrcd.datasets import FaceFolder
from mmcrrcd.datasets.faces import read_people
from mmcrrcd.models import IResNet, extract
from mmcrrcd.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from mmpretrain import get_model
from mmpretrain.models import ResNet_CIFAR
from PIL import Image
from utils import shared_file, tool

ROOT = Path(__file__).parents[1]
TINYFACE = ROOT / 'configs' / 'face' / 'resnet18_tinyface_16px.py'           # goes on from another config's training
FILES = sorted(set((ROOT / 'configs' / 'face').glob('*.py')) - {TINYFACE})
PAIR = 'iresnet50_resnet18_webface_16px'
TEACHERS = ['iresnet18_webface', 'iresnet50_webface', 'resnet50_webface', 'iresnet18_lfw']
ROWS = ['resnet18_webface_16px', PAIR, *(f'{PAIR}_{method}' for method in ('kd', 'crd', 'skd', 'horkd'))]
LFW = ['resnet18_lfw_16px', 'iresnet18_resnet18_lfw_16px', 'iresnet18_resnet18_lfw_16px_kd']
LFW_UPSAMPLED = [f'{name}_upsampled' for name in LFW]
PEOPLE = dict(webface=10_575, lfw=1_334)
IMAGES = dict(webface=494_414)
# of the backbones, known from their papers' codes
BACKBONES = dict(iresnet18=11_177_000, iresnet50=30_742_000, resnet18=11_173_000, resnet50=23_500_000)

FIRST = {IResNet: 'stages.0.0.conv1.weight', ResNet_CIFAR: 'layer2.0.conv1.weight'}         # of many convolutions

every_file = pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)


def data_of(path: Path) -> str:
    return next(name for name in PEOPLE if f'_{name}' in path.stem)


def method_of(path: Path) -> set[str]:
    """Names of the losses beside that of classification."""
    if path.stem.split('_')[1] in PEOPLE:
        return set()
    found = re.search(r'16px_(kd|crd|skd|horkd)', path.stem)
    return {found[1]} if found else {'kd', 'rcd'}


def load(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / 'face' / f'{name}.py')


def test_what_the_folder_holds():
    upsampled = [f'{name}_upsampled' for name in ROWS]
    assert [path.stem for path in FILES] == sorted([*TEACHERS, *ROWS, *upsampled, *LFW, *LFW_UPSAMPLED])


@every_file
def test_data_classes_and_schedule(path):
    cfg = Config.fromfile(path)
    data = cfg.train_dataloader.dataset
    assert data.type is FaceFolder and data.image_size == cfg.model.input_size == dict(webface=112, lfw=64)[data_of(path)]
    assert data.data_root == dict(webface='data/casia_webface', lfw='data/lfw/lfw')[data_of(path)]
    for network in ('student', 'teacher'):
        assert network not in cfg.model or cfg.model[network].head.num_classes == PEOPLE[data_of(path)]
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.flip == 0.5 and 'padding' not in preprocessor
    assert preprocessor.get('resolution') == (None if path.stem in TEACHERS else 16)
    assert preprocessor.get('upsample', False) == path.stem.endswith('_upsampled')
    assert (cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer.lr, cfg.train_cfg.max_epochs) == (96, 0.02, 35)
    assert cfg.param_scheduler.milestones == [21, 28, 32]
    # nobody to validate on, so no best checkpoint, and nothing left of the data that the schedule brings along
    assert cfg.default_hooks.checkpoint.save_best is None
    assert {cfg[f'{split}_{part}'] for split in ('val', 'test') for part in ('dataloader', 'evaluator', 'cfg')} == {None}


@every_file
def test_teacher_is_trained_by_a_config_that_exists(path):
    cfg = Config.fromfile(path)
    if not method_of(path):
        assert 'teacher' not in cfg.model and 'teacher_config' not in cfg
        return
    teacher = Config.fromfile(ROOT / cfg.teacher_config)
    assert Path(cfg.teacher_config).stem == f'{path.stem.split("_")[0]}_{data_of(path)}'
    assert cfg.model.teacher_checkpoint == f'work_dirs/{Path(cfg.teacher_config).stem}'
    assert teacher.model.student == cfg.model.teacher and teacher.train_dataloader == cfg.train_dataloader


@pytest.mark.parametrize('names', [ROWS, [f'{name}_upsampled' for name in ROWS], LFW, LFW_UPSAMPLED],
                         ids=['16px', 'upsampled', 'lfw', 'lfw_upsampled'])
def test_rows_of_a_table_differ_in_the_objective_alone(names):
    first, *others = map(load, names)
    for other in others:
        assert other.model.student == first.model.student
        assert other.model.data_preprocessor == first.model.data_preprocessor
        for key in ('train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness', 'default_hooks'):
            assert other[key] == first[key]


def test_the_people_of_lfw_are_counted_right():
    """Those of the real set that the config leaves to train on; the held-out folds share nobody with them."""
    data = load('iresnet18_lfw').train_dataloader.dataset
    with tarfile.open(shared_file('data', 'lfw', 'lfw.tar')) as tar:
        images = Counter(Path(name).parent.name for name in tar.getnames() if name.endswith('.jpg'))
    held_out = read_people(shared_file('data', 'lfw', 'pairs.txt'), data.exclude_folds)
    assert sum(number >= data.min_images for name, number in images.items() if name not in held_out) == PEOPLE['lfw']


def test_the_bank_has_a_place_for_each_image():
    for name in (f'{PAIR}_crd', f'{PAIR}_crd_upsampled'):
        assert load(name).model.objective.crd.num_samples == IMAGES['webface']


def write_faces(root: Path, people: int = 7, images: int = 3) -> Path:
    """Noise around a gray of each person, 20 x 24 pixels."""
    rng = np.random.default_rng(0)
    for person in range(people):
        folder = root / f'person_{person}'
        folder.mkdir(parents=True)
        for i in range(images):
            pixels = rng.integers(0, 120, (24, 20, 3)) + 20 * person
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f'{i}.png')
    return root


@pytest.fixture(scope='module')
def faces(tmp_path_factory):
    return write_faces(tmp_path_factory.mktemp('faces'))


def reduced(path: Path, faces: Path) -> Config:
    """The config for the seven people of :func:`write_faces`, without a checkpoint for its teacher."""
    cfg = Config.fromfile(path)
    data = cfg.train_dataloader.dataset
    data.data_root = str(faces)
    for choice in ('exclude', 'exclude_folds', 'min_images'):
        data.pop(choice, None)
    for network in ('student', 'teacher'):
        if network in cfg.model:
            cfg.model[network].head.num_classes = 7
    if 'teacher' in cfg.model:
        cfg.model.teacher_checkpoint = None
    if 'crd' in cfg.model.get('objective', {}):
        cfg.model.objective.crd.update(num_samples=21, num_negatives=8)
    return cfg


ONE_OF_A_KIND = ('iresnet18_lfw', ROWS[0], PAIR, f'{PAIR}_crd', LFW_UPSAMPLED[2])             # the others are slow


@pytest.mark.parametrize('path', [
    pytest.param(path, id=path.stem, marks=[] if path.stem in ONE_OF_A_KIND else [pytest.mark.slow]) for path in FILES])
def test_takes_one_step(path, faces):
    torch.manual_seed(0)
    cfg = reduced(path, faces)
    if 'teacher' in cfg.model and cfg.model.teacher.backbone.depth == 50:
        cfg.model.teacher.backbone.depth = 18            # the large one takes its step in its own config
    model = MODELS.build(cfg.model)
    model.init_weights()
    assert model.student.backbone.state_dict()[FIRST[cfg.model.student.backbone.type]].std() == pytest.approx(0.1, rel=0.1)
    name = cfg.model.student.backbone.type.__name__.replace('_CIFAR', '').lower() + str(cfg.model.student.backbone.depth)
    assert name in path.stem.split('_')[:2]
    assert sum(p.numel() for p in model.student.backbone.parameters()) == pytest.approx(BACKBONES[name], rel=1e-3)
    seen = {}
    for network in ('teacher', 'student') if 'teacher' in cfg.model else ('student', ):
        getattr(model, network).backbone.register_forward_pre_hook(
            lambda _, inputs, network=network: seen.update({network: tuple(inputs[0].shape)}))
    if 'rcd' in model.losses:
        model.losses.rcd.queue.pushed.fill_(512)         # counts as filled
    data = DATASETS.build(cfg.train_dataloader.dataset).__getitems__([0, 5, 10, 20])
    before = {name: p.detach().clone() for name, p in model.student.named_parameters()}
    log = model.train().train_step(data, build_optim_wrapper(model, cfg.optim_wrapper))
    assert all(torch.isfinite(value).all() for value in log.values())
    assert {key.removeprefix('loss_') for key in log if key.startswith('loss_')} == method_of(path) | {'cls'}
    large = cfg.model.input_size
    side = 16 if '_16px' in path.stem and not path.stem.endswith('_upsampled') else large
    assert seen == dict(student=(4, 3, side, side)) | (dict(teacher=(4, 3, large, large)) if method_of(path) else {})
    same = [name for name, p in model.student.named_parameters() if torch.equal(p, before[name])]
    assert same == ['neck.last_norm.weight']
    with torch.no_grad():
        assert model.eval()(**model.data_preprocessor(data), mode='tensor').shape == (4, 7)


def test_a_run_from_folders_to_an_exported_student(faces, tmp_path):
    """Two epochs of a real config by mmengine's runner, without validation; then plain mmpretrain has the student."""
    cfg = reduced(ROOT / 'configs' / 'face' / 'resnet18_webface_16px.py', faces)
    cfg.train_dataloader.batch_size = 10                 # and one image is left over
    cfg.train_cfg.max_epochs = 2
    cfg.work_dir, cfg.log_level = str(tmp_path / 'run'), 'ERROR'
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 4
    assert (tmp_path / 'run' / 'last_checkpoint').read_text().endswith('epoch_2.pth')
    tool('export_student.py', tmp_path / 'run', '--out', tmp_path / 'student')
    student = get_model(str(tmp_path / 'student' / 'student.py'), pretrained=str(tmp_path / 'student' / 'student.pth')).eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(student(images), extract(runner.model.eval().student, images).logits)


def test_a_trained_student_goes_on_with_other_people(faces, tmp_path):
    cfg = reduced(ROOT / 'configs' / 'face' / 'resnet18_webface_16px.py', faces)
    torch.manual_seed(0)
    trained = MODELS.build(cfg.model)
    trained.init_weights()
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / 'trained.pth')
    cfg = Config.fromfile(TINYFACE)
    assert cfg.model.student.head.num_classes == 2570 and 'resolution' not in cfg.model.data_preprocessor
    cfg.model.student.head.num_classes = 5
    cfg.model.student.init_cfg.checkpoint = str(tmp_path / 'trained.pth')
    cfg = Config.fromstring(cfg.pretty_text, '.py')      # as a run writes it down
    cfg.train_dataloader.dataset.data_root = str(write_faces(tmp_path / 'Training_Set', people=5))
    cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs = 6, 1
    cfg.work_dir, cfg.log_level = str(tmp_path / 'run'), 'ERROR'
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    student = runner.model.student
    for part in ('backbone', 'neck'):
        for name, value in getattr(trained.student, part).state_dict().items():
            assert torch.equal(value, getattr(student, part).state_dict()[name])
    runner.train()
    assert runner.iter == 2
    assert runner.train_dataloader.dataset.images.shape == (15, 16, 16, 3)


def test_there_is_no_test_without_test_data(tmp_path):
    torch.save({}, tmp_path / 'student.pth')
    with pytest.raises(SystemExit, match='resnet18_lfw_16px.py has no test_dataloader; for face networks'):
        tool('test.py', ROOT / 'configs' / 'face' / 'resnet18_lfw_16px.py', tmp_path / 'student.pth')


def test_a_wrong_number_of_people_is_said_before_training(faces, tmp_path):
    cfg = reduced(ROOT / 'configs' / 'face' / 'resnet18_webface_16px.py', faces)
    cfg.model.student.head.num_classes = 8
    cfg.work_dir, cfg.log_level = str(tmp_path / 'run'), 'ERROR'
    with pytest.raises(ValueError, match='the training data have 7 classes, the student 8: set its head.num_classes'):
        Runner.from_cfg(cfg).train()
