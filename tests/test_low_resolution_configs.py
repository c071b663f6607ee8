"""The configs of configs/low_resolution and their teachers: form, data, and a step at the resolution of their names."""
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcrrcd.datasets import svhn
from mmcrrcd.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner

ROOT = Path(__file__).parents[1]
LOW = sorted((ROOT / 'configs' / 'low_resolution').glob('*.py'))
TEACHERS = [ROOT / 'configs' / 'teachers' / f'{name}.py'
            for name in ('resnet56_svhn', 'resnet18_tinyimagenet', 'vgg8_tinyimagenet')]
DATA = dict(svhn=('SVHNArrays', 10, 32), cifar100=('CIFAR100Arrays', 100, 32), tinyimagenet=('TinyImageNetArrays', 200, 64),
            stl10=('STL10Arrays', 10, 96))
STUDENTS = dict(vgg8=3_919_000, resnet56=855_000, resnet18=11_168_000)                         # without their classifiers
SEVERAL = {'8to64': [8, 16, 24, 32, 48, 64]}

every_file = pytest.mark.parametrize('path', LOW + TEACHERS, ids=lambda path: path.stem)


def data_of(path: Path) -> str:
    return next(name for name in DATA if f'_{name}' in path.stem)


def test_what_the_folder_holds():
    assert [path.stem for path in LOW] == sorted([
        'resnet56_vgg8_svhn_8px', 'resnet56_vgg8_svhn_8px_kd', 'vgg8_svhn_8px', 'resnet56_vgg8_cifar100_8px',
        'resnet56_vgg8_cifar100_16px', 'resnet18_vgg8_tinyimagenet_8px',
        'resnet18_vgg8_tinyimagenet_16px', 'vgg8_vgg8_cifar100_8px', 'vgg8_vgg8_tinyimagenet_8px',
        'vgg8_vgg8_tinyimagenet_8to64px'])


@every_file
def test_data_classes_and_schedule(path):
    cfg = Config.fromfile(path)
    name, classes, side = DATA[data_of(path)]
    for loader, split in ((cfg.train_dataloader, 'train'), (cfg.val_dataloader, 'test'), (cfg.test_dataloader, 'test')):
        assert loader.dataset.type.__name__ == name
        assert loader.dataset.data_root == f'data/{data_of(path)}'
        assert loader.dataset.split == ('val' if name.startswith('Tiny') and split == 'test' else split)
    for network in ('student', 'teacher'):
        assert network not in cfg.model or cfg.model[network].head.num_classes == classes
    assert cfg.model.get('input_size', 32) == side
    assert cfg.model.data_preprocessor.get('flip', 0) == (0 if name.startswith('SVHN') else 0.5)
    assert (cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer.lr, cfg.train_cfg.max_epochs) == (96, 0.05, 35)
    assert cfg.param_scheduler.milestones == [21, 28, 32]


@pytest.mark.parametrize('name', ['svhn', 'tiny_imagenet', 'stl10'])
def test_data_sets_are_built_as_the_configs_say(name, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs' / '_base_' / 'datasets' / f'{name}.py')
    assert cfg.data_preprocessor.padding * 8 == DATA[name.replace('_', '')][2]
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        with pytest.raises(FileNotFoundError, match=f'^{tmp_path}/[a-z0-9_-]+(.mat)? is missing; set download=True, or '):
            DATASETS.build(loader.dataset | dict(data_root=str(tmp_path), download=False))


@pytest.mark.parametrize('path', LOW, ids=lambda path: path.stem)
def test_teacher_is_trained_by_a_config_that_exists(path):
    cfg = Config.fromfile(path)
    if path.stem == 'vgg8_svhn_8px':
        assert 'teacher' not in cfg.model and 'teacher_config' not in cfg
        return
    assert cfg.model.teacher_checkpoint == f'work_dirs/{Path(cfg.teacher_config).stem}'
    teacher = Config.fromfile(ROOT / cfg.teacher_config)
    assert teacher.model.student == cfg.model.teacher
    assert teacher.train_dataloader.dataset == cfg.train_dataloader.dataset
    ours, theirs = ({key: value for key, value in each.model.data_preprocessor.items()
                     if 'resolution' not in key and key != 'upsample'}
                    for each in (cfg, teacher))
    assert ours == theirs


def test_the_three_rows_of_svhn_differ_in_the_objective_alone():
    crrcd, kd, student_only = (Config.fromfile(ROOT / 'configs' / 'low_resolution' / f'{name}.py') for name in (
        'resnet56_vgg8_svhn_8px', 'resnet56_vgg8_svhn_8px_kd', 'vgg8_svhn_8px'))
    for other in (kd, student_only):
        assert other.model.student == crrcd.model.student
        assert other.model.data_preprocessor == crrcd.model.data_preprocessor
        for key in ('train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness'):
            assert other[key] == crrcd[key]
    kd.model.teacher_checkpoint = crrcd.model.teacher_checkpoint = None
    assert set(MODELS.build(crrcd.model).losses) == {'kd', 'rcd'} and set(MODELS.build(kd.model).losses) == {'kd'}
    assert not MODELS.build(student_only.model).losses


FAST = ('resnet56_vgg8_svhn_8px', 'resnet56_vgg8_cifar100_8px',
        'resnet18_vgg8_tinyimagenet_8px', 'vgg8_tinyimagenet')           # each network, and way to see; the others are slow


@pytest.mark.parametrize('path', [pytest.param(path, id=path.stem, marks=[] if path.stem in FAST else [pytest.mark.slow])
                                  for path in LOW + TEACHERS])
def test_takes_one_step(path):
    torch.manual_seed(0)
    cfg = Config.fromfile(path)
    _, classes, side = DATA[data_of(path)]
    if 'teacher' in cfg.model:
        cfg.model.teacher_checkpoint = None
    model = MODELS.build(cfg.model)
    model.init_weights()
    weights = sum(p.numel() for p in model.student.backbone.parameters())
    name = max((name for name in STUDENTS if re.search(f'(^|_){name}_', path.stem)), key=path.stem.index)
    assert weights == pytest.approx(STUDENTS[name], rel=0.01)
    seen = []
    model.student.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    if 'rcd' in model.losses:
        model.losses.rcd.queue.pushed.fill_(512)         # counts as filled
    data = dict(inputs=torch.randint(256, (4, 3, side, side), dtype=torch.uint8), labels=torch.tensor([3, classes - 1, 0, 3]),
                index=torch.arange(4))
    optim_wrapper = build_optim_wrapper(model.train(), cfg.optim_wrapper)
    before = {name: p.detach().clone() for name, p in model.student.named_parameters()}
    several = next((sides for name, sides in SEVERAL.items() if name in path.stem), None)
    for _ in range(8 if several else 1):
        log = model.train_step(data, optim_wrapper)
        assert all(torch.isfinite(value).all() for value in log.values())
    assert not [name for name, p in model.student.named_parameters() if torch.equal(p, before[name])]
    sides = {height for height, width in seen if height == width}
    if several:
        assert len(sides) >= 3 and sides <= set(several)
    else:
        found = re.search(r'_(\d+)px', path.stem)
        upsampled = cfg.model.data_preprocessor.get('upsample', False)
        assert upsampled == ('vgg8_cifar100_' in path.stem)               # the better where both were measured
        assert sides == {int(found[1]) if found and not upsampled else side}
    seen.clear()
    model.eval().val_step(data)
    assert seen == [(16, 16)] if several else seen[0][0] in sides


def test_svhn_config_runs_on_files_in_the_official_form(tmp_path, monkeypatch):
    """An epoch of the real config, teacher and all, on a handful of images."""
    monkeypatch.syspath_prepend(ROOT / 'tests' / 'test_datasets')
    from test_svhn import digits, write
    counts = {'train': 96, 'test': 20}
    monkeypatch.setattr(svhn, 'COUNTS', counts)
    for split, number in counts.items():
        write(tmp_path / f'{split}_32x32.mat', *digits(number, seed=1))
    cfg = Config.fromfile(ROOT / 'configs' / 'low_resolution' / 'resnet56_vgg8_svhn_8px.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.update(data_root=str(tmp_path), download=False)
    cfg.train_dataloader.batch_size = 48
    cfg.model.teacher_checkpoint = None
    cfg.train_cfg.max_epochs = 1
    cfg.work_dir = str(tmp_path / 'run')
    cfg.log_level = 'ERROR'
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    assert np.isfinite(runner.message_hub.get_scalar('val/accuracy/top1').current())


PAGE = (ROOT / 'docs' / 'data.md').read_text(encoding='utf-8')
SNIPPETS = dict(re.findall(r'```python\n# (configs/\S+\.py)\n(.*?)```', PAGE, re.DOTALL))


def test_documented_config_is_the_mmpretrain_twin(tmp_path, monkeypatch):
    (name, text), = SNIPPETS.items()
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    (tmp_path / name).write_text(text, encoding='utf-8')
    piped = Config.fromfile(tmp_path / name)
    in_memory = Config.fromfile(ROOT / 'configs/low_resolution/resnet56_vgg8_svhn_8px.py')
    assert piped.model == in_memory.model and piped.train_dataloader.batch_size == 96
    monkeypatch.syspath_prepend(ROOT / 'tests' / 'test_datasets')
    from test_svhn import digits, write
    monkeypatch.setattr(svhn, 'COUNTS', {'train': 8, 'test': 8})
    for split, loader in (('train', piped.train_dataloader), ('test', piped.val_dataloader), ('test', piped.test_dataloader)):
        assert loader.dataset.arrays.split == split and loader.dataset.arrays.data_root == 'data/svhn'
        write(tmp_path / f'{split}_32x32.mat', *digits(8, seed=1))
        loader.dataset.arrays.data_root = str(tmp_path)
        dataset = DATASETS.build(loader.dataset)
        sample = dataset[2]
        assert len(dataset) == 8 and sample['inputs'].shape == (3, 32, 32)
        assert sample['data_samples'].gt_label.item() == dataset.arrays.labels[2]
        assert split == 'train' or torch.equal(sample['inputs'], dataset.arrays[2]['inputs'][0])
