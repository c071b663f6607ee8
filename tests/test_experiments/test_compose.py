"""The configs of the runs: pairs, methods, schedules, small images, faces, studies."""
from inspect import signature

import pytest
from mmengine.config import Config

import tiny
from experiments import compose
from experiments.compose import Recipe, face, load, low, of_study, paired, teacher_cache_fits, use_cache
from experiments.figure3 import ABLATIONS, LEARNED, SWEEPS
from experiments.studies import STUDIES, Setting
from experiments.tables import TABLES
from mmcrrcd.errors import InputError
from mmcrrcd.models import CRRCD
from mmcrrcd.registry import MODELS

R56_R20, MOBILE = ('resnet56', 'resnet20'), ('wrn50', 'shufflenetv1')


def composed(method: str, pair: tuple[str, str] = R56_R20, **recipe) -> Config:
    return compose.compose(method, pair, Recipe(**recipe))


def milestones(cfg: Config) -> list[list[int]]:
    schedulers = cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]
    return [scheduler.milestones for scheduler in schedulers if 'milestones' in scheduler]


@pytest.mark.parametrize('method', ['kd', 'ab', 'ft', 'crcd', 'dkd', 'sskd', 'ekd'])
def test_on_its_own_pair_a_method_is_its_config(method):
    own, cell = load(f'baselines/{method}'), composed(method)
    for key in ('model', 'train_cfg', 'param_scheduler', 'optim_wrapper', 'train_dataloader', 'randomness'):
        assert cell[key] == own[key]


@pytest.mark.parametrize('of', [composed, lambda method: low(method, ('resnet56', 'vgg8'), Recipe(resolution=8), 'cifar100'),
                                lambda method: face(method, ('iresnet18', 'resnet18'), Recipe(), 'lfw')])
def test_the_learned_form_is_a_method_of_its_own(of):
    assert LEARNED.items() <= of('crrcd_learned').model.to_dict().items() and 'relation' not in of('crrcd').model


def test_crrcd_and_the_student_only_baseline():
    assert composed('crrcd', MOBILE).to_dict() == load('crrcd/wrn50_shufflenetv1_cifar100').to_dict()
    cell, own = composed('student', MOBILE), load('students/shufflenetv1_cifar100')
    assert 'teacher' not in cell.model and cell.model.type.endswith('Distiller')
    assert cell.model.student == own.model.student and cell.optim_wrapper == own.optim_wrapper


def test_a_pair_keeps_its_networks_and_learning_rate():
    cell, pair = composed('ab', MOBILE, resolution=8, amp=True), load('crrcd/wrn50_shufflenetv1_cifar100')
    assert cell.model.student == pair.model.student and cell.model.teacher_checkpoint == 'work_dirs/wrn50_cifar100'
    assert cell.optim_wrapper.optimizer.lr == 0.01 and cell.optim_wrapper.type == 'mmcrrcd.BF16OptimWrapper'
    assert cell.model.data_preprocessor.resolution == 8 and set(cell.model.objective) == {'ab'} and 'alpha' not in cell.model


def test_a_pair_without_a_config_has_the_networks_of_base():
    cell = compose.of_pair('resnet110', 'vgg8')
    networks = load('_base_/networks')
    assert cell.model.teacher == networks.resnet110 and cell.model.student == networks.vgg8
    assert cell.model.student.head.num_classes == 100 and cell.model.teacher_checkpoint == 'work_dirs/resnet110_cifar100'
    with pytest.raises(InputError, match='has no network vgg9'):
        compose.of_pair('resnet56', 'vgg9')


@pytest.mark.parametrize('pair, beta', [(R56_R20, 2), (('wrn40_2', 'wrn16_2'), 6), (('resnet32x4', 'resnet8x4'), 8)])
def test_constants_of_the_pair(pair, beta):
    assert composed('dkd', pair).model.objective.dkd.beta == beta
    assert milestones(composed('ft')) == [[180, 210, 240], [0], [30]]             # the paraphraser learns more slowly
    assert milestones(composed('ft', MOBILE)) == [[180, 210, 240]]


@pytest.mark.parametrize('method, recipe, epochs, steps', [
    ('kd', dict(schedule='paper_35e'), 35, [[21, 28, 32]]),
    ('crrcd', dict(schedule='paper_35e', epochs=70), 70, [[42, 56, 64]]),
    ('kd', dict(epochs=24), 24, [[15, 18, 21]]),
    ('ab', dict(epochs=24), 27, [[18, 21, 24]]),
    ('ft', dict(epochs=24), 27, [[18, 21, 24], [0], [3]]),
    ('sskd', dict(epochs=24), 30, [[3, 4, 21, 24, 27], [6]]),
    ('ab', dict(epochs=1), 2, [[2, 2, 2]])])
def test_a_schedule_is_scaled_as_a_whole(method, recipe, epochs, steps):
    cell = composed(method, **recipe)
    assert cell.train_cfg.max_epochs == epochs and milestones(cell) == steps
    assert cell.train_dataloader.batch_size == (96 if 'schedule' in recipe else 64)


def test_so_are_weights_and_stages():
    assert composed('ab', epochs=24).model.objective.ab.weight == [(0, 1), (3, 1), (3, 0)]
    for epochs, last in ((24, 23), (12, 11), (2, 1), (1, 1)):         # off for an epoch at least, where there are two
        assert composed('crcd', epochs=epochs).model.objective.crcd.weight == [(0, 1), (last, 1), (last, 0)]
    assert composed('sskd', epochs=24).model.head_epochs == 6
    ft = composed('ft', epochs=24).model
    assert ft.objective.ft.paraphraser_epochs == 3 and ft.cls_weight == [(0, 0), (3, 0), (3, 1)]
    assert composed('crcd', epochs=24).model.objective.crcd.num_samples == 50_000          # what is no schedule stays


def test_a_composed_config_survives_its_file(tmp_path):
    cell = paired(composed('sskd', epochs=24, amp=True), 7)
    cell.dump(tmp_path / 'config.py')
    assert Config.fromfile(tmp_path / 'config.py').to_dict() == cell.to_dict() and cell.randomness.seed == 7


@pytest.mark.parametrize('name', TABLES)
def test_all_cells_can_be_composed(name):
    table = TABLES[name]
    for method, pair in table.cells():
        cfg = table.compose(method, pair, Recipe(table.schedule, resolution=table.resolution))
        assert 'student' in cfg.model
    assert len(TABLES['table1'].cells()) == 17 * 7 - 1 and len(TABLES['table2'].cells()) == 17 * 5


def test_small_images_and_faces():
    as_they_are, upsampled = (low('kd', ('vgg8', student), Recipe(resolution=16), 'cifar100')
                              for student in ('vgg8', 'vgg8_upsampled'))
    assert as_they_are.model.beta == 0 and not as_they_are.model.data_preprocessor.upsample
    assert upsampled.model.data_preprocessor.upsample and upsampled.model.data_preprocessor.resolution == 16
    naive = face('naive', ('iresnet18', 'resnet18'), Recipe(epochs=24), 'lfw')
    assert naive.model.data_preprocessor.resolution == 16 and naive.train_cfg.max_epochs == 24
    first = face('kd', ('iresnet50', 'resnet18_upsampled'), Recipe(epochs=7), 'webface')
    then = compose.further('face/resnet18_tinyface_16px', first, 'epoch_7.pth')
    assert then.train_cfg.max_epochs == 7 and then.model.student.head.num_classes == 2570
    assert then.model.student.init_cfg.checkpoint == 'epoch_7.pth' and then.train_dataloader.dataset.image_size == 112


def test_settings_of_a_study():
    setting = Setting(method='kd', images_per_class=20, holdout=5000, epochs=10, batch=32, lr=0.02, warmup=2, gamma=0.1)
    cfg = of_study(setting, Recipe(), {'model.cls_weight': 0.5})
    assert cfg.train_dataloader.batch_size == 32 and cfg.optim_wrapper.optimizer.lr == 0.02 and cfg.model.cls_weight == 0.5
    train, test = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    assert (train.images_per_class, train.holdout, test.part) == (20, 5000, 'holdout') and train.dataset == test.dataset
    assert cfg.model.backbone_gradient == 0.1 and cfg.param_scheduler[-1].end == 2 and milestones(cfg) == [[6, 8, 9]]
    for study in STUDIES.values():
        assert study.reference in study.arms
        for arm in study.arms.values():
            assert all(key in Setting._fields or '.' in key for key in arm)
    assert len(STUDIES['few'].arms) == 17 and STUDIES['few'].base.holdout is None and STUDIES['rates'].base.holdout == 5000


@pytest.mark.parametrize('study, arm, cls, weights', [
    ('few', 'CRRCD', 1, dict(kd=0.9, rcd=1)), ('few', 'KD as before', 1, dict(kd=0.5)),
    ('weights', 'with SRD', 1, dict(kd=0.9, rcd=1, srd=1)), ('weights', 'CRRCD, 1 CE + 0.5 KD', 1, dict(kd=0.5, rcd=1)),
    ('label_free', 'CRRCD', 0, dict(rcd=1)), ('label_free', 'cosine regression', 0, dict(cosine=1))])
def test_arms_of_the_study_of_the_loss(study, arm, cls, weights):
    changes = STUDIES[study].arms[arm]
    setting = STUDIES[study].base._replace(images_per_class=None,
                                           **{key: value for key, value in changes.items() if key in Setting._fields})
    cfg = of_study(setting, Recipe(views=setting.views), {key: value for key, value in changes.items() if '.' in key})
    assert cfg.model.pop('teacher_cache') == dict(views=8)
    model = MODELS.build(dict(cfg.model, teacher_checkpoint=None))
    assert model.cls_weight == cls and {name: model.weights[name] for name in model.losses} == weights


def test_the_cache_is_for_methods_that_need_no_more_of_the_teacher():
    wanted = {'kd', 'crrcd', 'crd', 'pkt', 'rkd', 'cc', 'dkd', 'simkd'}
    for method in (*wanted, 'fitnet', 'at', 'ab', 'fsp', 'sskd', 'ekd', 'student'):
        cfg = composed(method)
        use_cache(cfg, 4)
        assert ('teacher_cache' in cfg.model) == (method in wanted) == teacher_cache_fits(cfg.model), method


def test_sweeps_are_of_the_ablations_and_each_is_another():
    named = {name for sweep in SWEEPS.values() for name in sweep.names.values()}
    assert named == set(ABLATIONS) and ABLATIONS['default'] == {}
    defaults = {name: parameter.default for name, parameter in signature(CRRCD).parameters.items()}
    for key, name in dict(negatives='num_negatives', tau='tau', beta='beta', alpha='alpha', anchors='num_anchors').items():
        for sweep, base, method in ((SWEEPS[key], defaults, 'default'), (SWEEPS[f'learned_{key}'], LEARNED, 'learned')):
            assert [float(value) for value, of in sweep.names.items() if of == method] == [base[name]]
    settings = [tuple(sorted((key, str(value)) for key, value in changes.items())) for changes in ABLATIONS.values()]
    assert len(set(settings)) == len(settings)


@pytest.mark.parametrize('name', ABLATIONS)
def test_every_ablation_trains(name, tmp_path):
    changes = ABLATIONS[name] | (dict(num_negatives=12) if ABLATIONS[name].get('num_negatives', 512) else {})
    model = MODELS.build(tiny.crrcd(tiny.write_teacher(tmp_path / 'teacher.pth')) | changes)
    model.init_weights()
    data = model.data_preprocessor(tiny.TinyImages(seed=0).__getitems__(list(range(tiny.BATCH))), training=True)
    for _ in range(3):                                   # the queue is full then
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        loss.backward()
    assert loss.isfinite() and all(p.grad is not None and p.grad.isfinite().all() for p in model.student.parameters())
