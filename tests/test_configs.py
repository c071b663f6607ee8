"""Every config file: its form, its schedule, and one training step at the resolution that its name says."""
import inspect
import re
import shutil
from pathlib import Path

import pytest
import torch
from experiments.compose import Recipe, load, of_study
from experiments.studies import STUDIES, Setting
from mmcrrcd.engine.launch import prepare_processes
from mmcrrcd.models import CRRCD, PairPreprocessor
from mmcrrcd.models.algorithms.schedule import value_at
from mmcrrcd.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS

ROOT = Path(__file__).parents[1]
FILES = sorted(path for names in ('teachers/*_cifar100.py', 'students/*.py', 'crrcd/*.py', 'baselines/*.py')
               for path in (ROOT / 'configs').glob(names))    # those of low_resolution: test_low_resolution_configs.py
TEACHERS = 'resnet56 resnet110 resnet32x4 wrn40_2 vgg13 vgg11 vgg8 resnet18 wrn50'.split()
STUDENTS = 'wrn16_2 wrn40_1 resnet20 resnet32 resnet8x4 vgg8 shufflenetv1 shufflenetv2'.split()
PAIRS = ('wrn40_2_wrn16_2 wrn40_2_wrn40_1 resnet56_resnet20 resnet110_resnet20 resnet110_resnet32 resnet32x4_resnet8x4 '
         'vgg13_vgg8 resnet18_vgg8 vgg11_shufflenetv1 resnet18_shufflenetv2 wrn50_shufflenetv1 wrn50_vgg8').split()
METHODS = ('kd fitnet at pkt sp rkd cc vid ab ft nst fsp crd crcd wcord dkd sskd ekd skd horkd '
           'lskd dist wttm itrd srd simkd').split()
FIRST_STAGE = dict(ab=30, ft=30, fsp=30, sskd=60)         # epochs before the 240 of the tables
OF_THE_STUDIES = 'resnet56_vgg8_cifar100_8px'
THEIR_RECIPE = (OF_THE_STUDIES, 'resnet56_resnet20_cifar100_8to32px',
                *(f'{name}_cifar100_{side}px' for name in ('resnet56_resnet20', 'resnet20') for side in (8, 16)))
LOW_PAIRS = 'resnet56_resnet20 resnet32x4_resnet8x4 wrn50_shufflenetv1'.split()
# of the published networks, with their classifiers
PARAMETERS = dict(
    resnet20=278_324, resnet32=472_756, resnet56=861_620, resnet110=1_736_564, resnet8x4=1_233_540, resnet32x4=7_433_860,
    wrn16_2=703_284, wrn40_1=569_780, wrn40_2=2_255_156, vgg8=3_965_028, vgg11=9_277_284, vgg13=9_462_180,
    shufflenetv1=949_258, shufflenetv2=1_355_528, resnet18=11_220_132, densenet100=800_032,
    wrn50=67_031_460)


def name_of(path: Path) -> str:
    return f'{path.parent.name}/{path.stem}'


every_file = pytest.mark.parametrize('path', FILES, ids=name_of)


def networks_of(path: Path) -> tuple[str | None, str]:
    """Teacher and student that the name of a config says; a teacher's own training has a student only."""
    if path.parent.name == 'baselines':
        return 'resnet56', 'resnet20'
    names = [name for name in PARAMETERS if path.stem.split('_cifar100')[0].endswith(name)]
    student = max(names, key=len)
    return path.stem.split('_cifar100')[0].removesuffix(student).removesuffix('_') or None, student


def resolution_of(path: Path) -> int:
    found = re.search(r'_(\d+)px$', path.stem)
    return int(found[1]) if found else 32


def number(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_all_that_the_tables_need_is_there():
    wanted = {f'teachers/{name}_cifar100' for name in TEACHERS} | {f'students/{name}_cifar100' for name in STUDENTS}
    wanted |= {f'crrcd/{pair}_cifar100' for pair in PAIRS} | {f'baselines/{method}' for method in METHODS}
    for pair in LOW_PAIRS:
        student = pair.rsplit('_', 1)[1]
        wanted |= {f'{name}_cifar100_{side}px' for name in (f'crrcd/{pair}', f'students/{student}') for side in (8, 16)}
    assert len(PAIRS) == 12 and len(METHODS) == 26
    assert wanted <= set(map(name_of, FILES))


@pytest.mark.parametrize('path', sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in str(path)),
                         ids=name_of)
def test_is_short_and_starts_with_its_command(path):
    lines = path.read_text(encoding='utf-8').splitlines()
    assert len(lines) <= 25
    assert f'{lines[0]} '.startswith(f'# python tools/train.py {path.relative_to(ROOT).as_posix()} ')


@every_file
def test_teacher_is_trained_by_a_config_that_exists(path):
    cfg = Config.fromfile(path)
    teacher, _ = networks_of(path)
    if path.parent.name in ('teachers', 'students'):
        assert 'teacher' not in cfg.model and 'teacher_config' not in cfg
        return
    assert cfg.teacher_config == f'configs/teachers/{teacher}_cifar100.py'
    assert (ROOT / cfg.teacher_config).is_file()
    # where tools/train.py leaves the checkpoints of that config; EKD's teacher learns along
    assert cfg.model.teacher_checkpoint == (None if path.stem == 'ekd' else f'work_dirs/{Path(cfg.teacher_config).stem}')
    assert Config.fromfile(ROOT / cfg.teacher_config).model.student == cfg.model.teacher.get('network', cfg.model.teacher)


@pytest.mark.parametrize('path', [path for path in FILES if path.stem not in THEIR_RECIPE], ids=name_of)
def test_schedule_is_the_one_of_the_published_tables(path):
    cfg = Config.fromfile(path)
    optimizer = cfg.optim_wrapper.optimizer
    assert cfg.train_dataloader.batch_size == 64
    assert optimizer.lr == (0.01 if 'shufflenet' in path.stem else 0.05)
    assert (optimizer.momentum, optimizer.weight_decay, optimizer.get('nesterov', False)) == (0.9, 5e-4, False)
    stage = FIRST_STAGE.get(path.stem, 0)
    assert cfg.train_cfg.max_epochs == stage + 240
    rates = learning_rates(cfg)
    assert [epoch for epoch in range(stage + 1, stage + 240) if rates[epoch] != rates[epoch - 1]] == [
        stage + milestone for milestone in (150, 180, 210)]
    assert rates[stage] == pytest.approx(optimizer.lr) and rates[-1] == pytest.approx(optimizer.lr / 1000)


@pytest.mark.parametrize('study, name', [('full', OF_THE_STUDIES), ('full_resnet20', 'resnet56_resnet20_cifar100_8px')])
def test_the_configs_are_what_the_studies_measured(study, name):
    arm = STUDIES[study].arms['CRRCD']
    setting = STUDIES[study].base._replace(views=0, **{key: arm[key] for key in arm if key in Setting._fields})
    options = {key: value for key, value in arm.items() if key not in Setting._fields}
    measured = of_study(setting, Recipe(), options)
    cfg = load(f'crrcd/{name}')
    for key in ('optim_wrapper', 'param_scheduler', 'train_dataloader', 'test_dataloader'):
        assert comparable(cfg[key]) == comparable(measured[key]), key
    assert cfg.train_cfg.max_epochs == measured.train_cfg.max_epochs
    defaults = {name: parameter.default for name, parameter in inspect.signature(CRRCD).parameters.items()}
    for key, value in measured.model.items():
        assert comparable(cfg.model.get(key, defaults.get(key, 1))) == comparable(value), key


def comparable(value):
    """Types by their last name."""
    if isinstance(value, dict):
        return {key: str(each).split('.')[-1] if key == 'type' else comparable(each) for key, each in value.items()}
    return [comparable(each) for each in value] if isinstance(value, (list, tuple)) else value


def learning_rates(cfg: Config) -> list[float]:
    """Of all epochs."""
    schedulers = cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    steps = [PARAM_SCHEDULERS.build(dict(scheduler, optimizer=optimizer)) for scheduler in schedulers]
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for step in steps:
            step.step()
    return rates


def test_learning_rates_of_first_stages():
    rates = {name: learning_rates(Config.fromfile(ROOT / 'configs' / 'baselines' / f'{name}.py')) for name in FIRST_STAGE}
    assert rates['ab'][:30] == rates['fsp'][:30] == [0.05] * 30
    assert rates['ft'][:30] == pytest.approx([0.01] * 30)           # the paraphraser's
    assert rates['sskd'][:60] == pytest.approx([0.05] * 30 + [0.005] * 15 + [0.0005] * 15)


# r, a and b of L = r CE + a KD + b method in the published recipes; a method's own weight in its last epoch where it has one.
WEIGHTS = dict(
    kd=(0.1, 0.9, None), fitnet=(1, None, 100), at=(1, None, 1000), sp=(1, None, 3000), cc=(1, None, 0.02), vid=(1, None, 1),
    rkd=(1, None, 1), pkt=(1, None, 30_000), ab=(1, None, 0), ft=(1, None, 200), nst=(1, None, 50), fsp=(1, None, 0),
    crd=(1, None, 0.8), crcd=(1, 0, 0), dkd=(1, None, 1), wcord=(1, None, 1), skd=(1, None, 1), horkd=(1, None, 1),
    lskd=(0.1, None, 9), dist=(1, None, 1), wttm=(1, None, 45), itrd=(1, None, 1), srd=(1, None, 1))


@pytest.mark.parametrize('method', WEIGHTS)
def test_weights_are_the_published_ones(method):
    cfg = Config.fromfile(ROOT / 'configs' / 'baselines' / f'{method}.py')
    r, a, b = WEIGHTS[method]
    end = cfg.train_cfg.max_epochs - 1
    weights = {name: value_at(loss.weight, end) for name, loss in cfg.model.objective.items()}
    expected = {name: value for name, value in (('kd', a), (method, b)) if value is not None}
    assert value_at(cfg.model.cls_weight, end) == r and weights == expected


@pytest.mark.parametrize('method', METHODS)
def test_ddp_is_told_where_parameters_go_without_gradients(method):
    cfg = Config.fromfile(ROOT / 'configs' / 'baselines' / f'{method}.py')
    prepare_processes(cfg, 'none')
    assert cfg.find_unused_parameters == (method in (*FIRST_STAGE, 'crcd', 'dkd'))


PAGE = ''.join((ROOT / 'docs' / f'{name}.md').read_text(encoding='utf-8') for name in ('configs', 'mmpretrain'))
SNIPPETS = dict(re.findall(r'```python\n# (configs/\S+\.py)\n(.*?)```', PAGE, re.DOTALL))


@pytest.fixture(scope='module')
def documented(tmp_path_factory):
    """A copy of all configs with those of docs/configs.md and docs/mmpretrain.md among them."""
    root = tmp_path_factory.mktemp('documented')
    shutil.copytree(ROOT / 'configs', root / 'configs')
    for name, text in SNIPPETS.items():
        (root / name).write_text(text, encoding='utf-8')
    return root


@pytest.mark.parametrize('name', SNIPPETS)
def test_documented_configs_build(name, documented):
    cfg = Config.fromfile(documented / name)
    if (ROOT / name).exists():
        assert (ROOT / name).read_text(encoding='utf-8').endswith(SNIPPETS[name])
    model = MODELS.build(cfg.model)
    assert model.student.head.num_classes == model.teacher.head.num_classes == (17 if 'flowers' in name else 100)
    assert model.data_preprocessor.resolution == (12 if '12px' in name else 16 if 'flowers' in name else None)
    assert cfg.train_dataloader.batch_size == 64
    piped = 'mmpretrain' in name or 'flowers' in name
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.type.__module__.startswith('mmpretrain' if piped else 'mmcrrcd')
        # what a data set of its own replaces is gone, not mixed in
        assert 'flowers' not in name or set(loader.dataset) == {'type', 'data_root', 'pipeline'}
    assert ('resnet34' in name) == (cfg.model.student.backbone.depth == 34 and 'init_cfg' not in cfg.model.student.head)
    if 'warm' in name:
        assert model.weights['rcd'] == [(0, 0.0), (20, 1.0)] and model.losses.rcd.num_anchors == 16


def test_documented_command_line_sets_the_resolution():
    cfg = Config.fromfile(ROOT / 'configs' / 'crrcd' / 'resnet56_resnet20_cifar100.py')
    cfg.merge_from_dict({'model.data_preprocessor.resolution': 8, 'model.beta': 1.0})
    model = MODELS.build(cfg.model)
    assert model.data_preprocessor.resolution == 8 and model.weights['rcd'] == 1.0


@pytest.fixture(scope='module')
def switched(tmp_path_factory):
    """A copy of all configs in which each says `paper_35e` in the one line that names the schedule."""
    root = tmp_path_factory.mktemp('switched') / 'configs'
    shutil.copytree(ROOT / 'configs', root)
    for path in FILES:
        copy = root / path.relative_to(ROOT / 'configs')
        lines = copy.read_text(encoding='utf-8').splitlines()
        for i, line in enumerate(lines):
            if '# or paper_35e' in line:
                lines[i] = re.sub(r'schedules\.\w+ import', 'schedules.paper_35e import', line)
        copy.write_text('\n'.join(lines), encoding='utf-8')
    return root


@pytest.mark.parametrize('path', [path for path in FILES if path.parent.name != 'baselines' and path.stem not in THEIR_RECIPE],
                         ids=name_of)
def test_one_line_switches_to_the_recipe_of_the_paper(path, switched):
    cfg = Config.fromfile(switched / path.relative_to(ROOT / 'configs'))
    assert cfg.train_dataloader.batch_size == 96
    assert cfg.optim_wrapper.optimizer.lr == 0.05
    assert cfg.param_scheduler.milestones == [21, 28, 32]
    assert cfg.train_cfg.max_epochs == 35


PAIRS_OF_THE_FAST_RUN = (OF_THE_STUDIES, 'resnet56_resnet20_cifar100', 'resnet56_resnet20_cifar100_8px',
                         'densenet100_vgg8_cifar100')
# Each network takes its step in its own config, each method in one; other pairs of these are slow, and so is the large network.
FAST = [path for path in FILES if path.parent.name == 'baselines' or path.stem in PAIRS_OF_THE_FAST_RUN
        or path.parent.name in ('teachers', 'students') and resolution_of(path) == 32 and 'wrn50' not in path.stem]


def test_the_fast_run_has_every_network_and_method():
    assert {networks_of(path)[1] for path in FAST} == PARAMETERS.keys() - {'wrn50'}
    assert {path.stem for path in FAST} > set(METHODS) and {resolution_of(path) for path in FAST} == {32, 8}


def shrink(teacher: Config) -> None:
    """Same kind of network, a sixteenth of the width: WRN-50-2's 67 million parameters are built once, in its own config."""
    teacher.backbone.update(base_channels=8)
    teacher.head.update(in_channels=128)


# losses beside that of classification, twenty epochs before the end; else the method's own
PARTS = dict(ab=set(), fsp=set(), crcd={'loss_kd', 'loss_crcd'}, ekd={'loss_guided', 'loss_teacher'},
             sskd={'loss_kd', 'loss_transformed', 'loss_contrast'})


@pytest.mark.parametrize('path', [
    pytest.param(path, id=name_of(path), marks=[] if path in FAST else [pytest.mark.slow]) for path in FILES])
def test_takes_one_step(path, request):
    torch.manual_seed(0)
    cfg = Config.fromfile(path)
    teacher, student = networks_of(path)
    if teacher:
        cfg.model.teacher_checkpoint = None
    if teacher == 'wrn50':
        shrink(cfg.model.teacher)
    model = MODELS.build(cfg.model)
    assert number(model.student) == PARAMETERS[student]
    assert teacher in (None, 'wrn50') or number(model.teacher) == PARAMETERS[teacher]

    model.init_weights()
    head = model.student.head.fc
    bound = head.in_features ** -0.5                     # torch's default for linear layers, as in the published recipe
    assert 0.9 * bound < head.weight.abs().max() <= bound

    seen = {}
    for name in ('teacher', 'student') if teacher else ('student',):
        getattr(getattr(model, name), 'network', getattr(model, name)).backbone.register_forward_pre_hook(
            lambda _, inputs, name=name: seen.update({name: tuple(inputs[0].shape)}))
    before = {name: p.detach().clone() for name, p in model.student.named_parameters()}
    if teacher:
        frozen = {name: p.clone() for name, p in model.teacher.state_dict().items()}
        hub = MessageHub.get_current_instance()
        request.addfinalizer(lambda: hub.update_info('epoch', 0))
        hub.update_info('epoch', cfg.train_cfg.max_epochs - 20)      # after first stages, before CRCD is switched off
        if 'rcd' in model.losses:
            model.losses.rcd.queue.pushed.fill_(512)     # counts as filled, so that the relational loss counts
    generator = torch.Generator().manual_seed(1)
    data = dict(inputs=torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator),
                labels=torch.tensor([3, 99, 0, 3]), index=torch.arange(4))
    model.train()
    log = model.train_step(data, build_optim_wrapper(model, cfg.optim_wrapper))

    assert all(torch.isfinite(value).all() for value in log.values())
    shown = 16 if path.stem == 'sskd' else 4             # with the images turned
    sides = cfg.model.data_preprocessor.get('train_resolutions') or [resolution_of(path)]       # of several one is drawn
    assert seen['student'] in [(shown, 3, side, side) for side in sides]
    model.state_dict()                                   # SimKD sets the student's head where it is asked for
    changed = [name for name, p in model.student.named_parameters() if not torch.equal(p, before[name])]
    assert changed == list(before)
    if teacher:
        parts = {name for name in log if name.startswith('loss_')}
        assert parts - {'loss_cls'} == PARTS.get(path.stem, {f'loss_{path.stem}'}) if path.parent.name == 'baselines' else (
            log['loss_rcd'] > 0 and log['loss_kd'] > 0)
        assert seen['teacher'] == (shown, 3, 32, 32)
        assert path.stem == 'ekd' or all(torch.equal(value, frozen[name]) for name, value in model.teacher.state_dict().items())


def test_mmpretrain_pipeline_is_one_line_away(switched):
    """The import of the data set in a schedule says `cifar100_mmpretrain`; batch size, model and resolution stay."""
    schedule = switched / '_base_' / 'schedules' / 'paper_35e.py'
    in_memory = Config.fromfile(switched / 'crrcd' / 'resnet32x4_resnet8x4_cifar100_8px.py')
    text = schedule.read_text(encoding='utf-8')
    line = '    from ..datasets.cifar100 import *'
    assert line in text
    schedule.write_text(text.replace(line, line.replace('cifar100', 'cifar100_mmpretrain')), encoding='utf-8')
    try:
        piped = Config.fromfile(switched / 'crrcd' / 'resnet32x4_resnet8x4_cifar100_8px.py')
    finally:
        schedule.write_text(text, encoding='utf-8')
    assert piped.model == in_memory.model
    assert piped.model.data_preprocessor.type is PairPreprocessor and piped.model.data_preprocessor.resolution == 8
    assert piped.optim_wrapper == in_memory.optim_wrapper
    for loader, split in ((piped.train_dataloader, 'train'), (piped.val_dataloader, 'test'), (piped.test_dataloader, 'test')):
        assert loader.dataset.type.__module__ == 'mmpretrain.datasets.cifar'
        assert loader.dataset.split == split
        assert loader.collate_fn.type.__name__ == 'pseudo_collate'
    assert piped.train_dataloader.batch_size == 96
    assert piped.val_evaluator.type.__name__ == piped.test_evaluator.type.__name__ == 'Accuracy'
