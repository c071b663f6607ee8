"""Wrong settings, each with the one line that a user of tools/train.py sees before anything is trained."""
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmcrrcd.command_line import merge_options
from mmcrrcd.config import read_config
from mmcrrcd.engine.settings import check_pairs, check_settings
from mmcrrcd.errors import InputError
from tiny import config, crrcd, pipeline_loader, write_folder, write_teacher
from tools import train

NAMES = [
    ('trian_cfg.max_epochs=1', "there is no 'trian_cfg'; did you mean 'train_cfg'?"),
    ('modle.beta=1', "there is no 'modle'; did you mean 'model'?"),
    ('randomnes.seed=1', "did you mean 'randomness'?"),
    ('optim_wraper.optimizer.lr=1', "did you mean 'optim_wrapper'?"),
    ('lr=0.1', "there is no 'lr'"),
    ('data_preprocessor.resolution=4', "did you mean 'model.data_preprocessor.resolution'?"),
    ('model.bta=1', "model: CRRCD has no setting 'bta'; did you mean 'beta'?"),
    ('model.num_negativ=64', "CRRCD has no setting 'num_negativ'; did you mean 'num_negatives'?"),
    ('model.input_sise=16', "did you mean 'input_size'?"),
    ('model.studnet.backbone.depth=8', "model: CRRCD has no setting 'studnet'; did you mean 'student'?"),
    ('model.student.backbone.deep=8', "model.student.backbone: ResNetCIFAR has no setting 'deep'; did you mean 'depth'?"),
    ('model.student.head.num_clases=4',
     "model.student.head: LinearClsHead has no setting 'num_clases'; did you mean 'num_classes'?"),
    ('model.data_preprocessor.resolutoin=8', "PairPreprocessor has no setting 'resolutoin'; did you mean 'resolution'?"),
    ('model.objective.at.wieght=1', "has no setting 'wieght'; did you mean 'weight'?"),
    ('param_scheduler.gamma.x=1', "param_scheduler.gamma is 0.1, which has no 'x'"),
    ('train_cfg.max_epoch=1', "train_cfg: EpochBasedTrainLoop has no setting 'max_epoch'; did you mean 'max_epochs'?"),
    ('train_cfg.val_intervall=1', "did you mean 'val_interval'?"),
    ('val_cfg.fp_16=True', "val_cfg: ValLoop has no setting 'fp_16'; did you mean 'fp16'?"),
    ('randomness.sed=1', "randomness has no setting 'sed'; did you mean 'seed'?"),
    ('env_cfg.cudnn_benchmrk=True', "env_cfg has no setting 'cudnn_benchmrk'; did you mean 'cudnn_benchmark'?"),
    ('auto_scale_lr.base_batchsize=8', "did you mean 'base_batch_size'?"),
    ('train_dataloader.batchsize=8', "train_dataloader has no setting 'batchsize'; did you mean 'batch_size'?"),
    ('train_dataloader.num_worker=0', "did you mean 'num_workers'?"),
    ('train_dataloader.dataset.sed=0', "train_dataloader.dataset: TinyImages has no setting 'sed'; did you mean 'seed'?"),
    ('train_dataloader.sampler.shufle=True', "train_dataloader.sampler: DefaultSampler has no setting 'shufle'"),
    ('optim_wrapper.optimizer.momentm=0.9', "optim_wrapper.optimizer: SGD has no setting 'momentm'; did you mean 'momentum'?"),
    ('optim_wrapper.clip_gard.max_norm=1', "OptimWrapper has no setting 'clip_gard'; did you mean 'clip_grad'?"),
    ('optim_wrapper.clip_grad.max_nrm=1', "optim_wrapper.clip_grad has no setting 'max_nrm'; did you mean 'max_norm'?"),
    ('optim_wrapper.paramwise_cfg.bias_lr_mul=2', "paramwise_cfg has no setting 'bias_lr_mul'; did you mean 'bias_lr_mult'?"),
    ('optim_wrapper.paramwise_cfg.custom_keys.head.lr_mul=2', "custom_keys.head has no setting 'lr_mul'"),
    ('optim_wrapper.paramwise_cfg.custom_keys.haed.lr_mult=2', "custom_keys: 'haed' is in the name of no weight"),
    ('param_scheduler.milestone=[2]', "MultiStepLR has no setting 'milestone'; did you mean 'milestones'?"),
    ('default_hooks.chekpoint.interval=2', "default_hooks has no hook 'chekpoint'; did you mean 'checkpoint'?"),
    ('default_hooks.checkpoint.intervall=2', "has no setting 'intervall'; did you mean 'interval'?"),
    ('default_hooks.logger.interval=2', "default_hooks.logger lacks its type"),
    ('custom_hooks.0.every=2', "custom_hooks.0: EpochSeedHook has no setting 'every'"),
    ('custom_hooks.9.interval=2', "custom_hooks is a list of 4 without place '9'"),
    ('val_evaluator.top=1', "val_evaluator: BatchAccuracy has no setting 'top'; did you mean 'topk'?"),
    ('log_processor.windowsize=9', "log_processor: LogProcessor has no setting 'windowsize'; did you mean 'window_size'?"),
]
VALUES = [
    ('model.alpha=-1', 'weight of kd: expected a number from 0 on, got -1'),
    ('model.beta=-0.5', 'weight of rcd: expected a number from 0 on, got -0.5'),
    ('model.cls_weight=-1', 'weight of the classification loss: expected a number from 0 on, got -1'),
    ('model.cls_weight=[(0,1),(3,-1)]', 'expected values from 0 on'),
    ('model.backbone_gradient=-1', 'weight of backbone_gradient: expected a number from 0 on'),
    ('model.alpha=much', "got 'much'"),
    ('model.temperature=hot', "model.temperature is a number, got 'hot'"),
    ('model.input_size=big', "input_size is a number of pixels (or a height and a width), got 'big'"),
    ('model.input_size=8', 'model.input_size is 8, and the training images have 16 x 16 pixels'),
    ('model.data_preprocessor.antialias=no', "model.data_preprocessor.antialias is True or False, got 'no'"),
    ('model.data_preprocessor.to_rgb=1', 'to_rgb is True or False, got 1'),
    ('model.data_preprocessor.upsample=yes', "upsample is True or False, got 'yes'"),
    ('model.data_preprocessor.resolution=32', 'data_preprocessor.resolution: 32 is more than the 16 x 16 pixels'),
    ('model.data_preprocessor.train_resolutions=[8,20]', 'data_preprocessor.train_resolutions: 20 is more than the 16 x 16'),
    ('model.student.backbone.depth=eight', "model.student.backbone.depth is a whole number, got 'eight'"),
    ('train_cfg.max_epochs=-5', 'train_cfg.max_epochs is a whole number from 1 on, got -5'),
    ('train_cfg.max_epochs=2.5', 'train_cfg.max_epochs is a whole number from 1 on, got 2.5'),
    ('train_cfg.val_interval=0', 'train_cfg.val_interval is a whole number from 1 on, got 0'),
    ('train_cfg=3', 'train_cfg'),
    ('train_dataloader.batch_size=0', 'train_dataloader.batch_size is a whole number from 1 on, got 0'),
    ('train_dataloader.batch_size=many', "train_dataloader.batch_size is a whole number from 1 on, got 'many'"),
    ('train_dataloader.num_workers=-1', 'train_dataloader.num_workers is a whole number from 0 on, got -1'),
    ('train_dataloader.drop_last=no', "train_dataloader.drop_last is True or False"),
    ('train_dataloader.sampler.shuffle=no', "train_dataloader.sampler.shuffle is True or False, got 'no'"),
    ('param_scheduler.milestones=[-2]', 'param_scheduler.milestones are whole numbers from 0 on, got [-2]'),
    ('param_scheduler.milestones=[a,b]', "param_scheduler.milestones are whole numbers from 0 on, got ['a', 'b']"),
    ('param_scheduler.milestones=3', 'milestones are whole numbers from 0 on, got 3'),
    ('randomness.seed=x', "randomness.seed is a whole number from 0 on, got 'x'"),
    ('model.teacher=nonsense', "model.teacher is a dict, got 'nonsense'"),
    ('train_dataloader.sampler=[3]', 'train_dataloader.sampler is a dict, got [3]'),
    ('model.student.backbone.widths=[8,16,x]', "model.student.backbone.widths is 4 whole numbers, got [8, 16, 'x']"),
    ('auto_scale_lr.enable=many', "auto_scale_lr.enable is True or False, got 'many'"),
    ('log_processor.window_size=[100]', 'log_processor.window_size is a whole number from 1 on, got [100]'),
    ('randomness.seed=99999999999', 'randomness.seed is less than 2**32'),
    ('default_hooks.checkpoint.rule=best', 'the checkpoint hook: rule must be greater, less or None'),
    ('optim_wrapper.paramwise_cfg.norm_decay_mult=no', "paramwise_cfg: norm_decay_mult is a number, got 'no'"),
    ('optim_wrapper.paramwise_cfg.custom_keys.head=2', 'custom_keys is a dict of dicts'),
    ('optim_wrapper.clip_grad.max_norm=-1', 'optim_wrapper.clip_grad.max_norm is a positive number, got -1'),
    ('param_scheduler.gamma=-0.1', 'param_scheduler.gamma is a number from 0 on, got -0.1'),
    ('param_scheduler.gamma=1e999', 'param_scheduler.gamma is a number from 0 on, got inf'),
    ('train_dataloader.timeout=5', 'train_dataloader.timeout is for workers, and num_workers=0'),
    ('model.student.head.loss.loss_weight=-1', 'model.student.head.loss.loss_weight is a number from 0 on, got -1'),
    ('custom_hooks.0.priority=FIRST', "custom_hooks.0.priority is a number from 0 to 100, or one of HIGHEST, "),
    ('model.input_size=10000000', 'input_size is at most 16384 pixels, got 10000000'),
    ('model.data_preprocessor.resolution=1000000000000000000', 'resolution is at most 16384 pixels'),
    ('model.data_preprocessor.blur=1e30', 'blur is a number from 0 to 255, got 1e+30'),
    ('model.objective.x.rate=1e30', 'there is not enough memory for FTLoss'),
    ('model.student.head.num_classes=100000000000000', 'there is not enough memory for LinearClsHead'),
    ('model.student.pretrained=True', 'a checkpoint is the path of a file, got True'),
    ('visualizer.save_dir=3', 'Visualizer cannot be built of dict(save_dir=3'),
    ('activation_checkpointing=backbone', "activation_checkpointing: the model has no module 'backbone'; did you mean "
     "'student.backbone'?"),
    ('efficient_conv_bn_eval=[student.backbon]', "efficient_conv_bn_eval: the model has no module 'student.backbon'; did you"),
    ('activation_checkpointing=[3]', "activation_checkpointing is a list of names of the model's modules, got [3]"),
    ('train_dataloader.sampler.num_repeats=0', 'train_dataloader.sampler.num_repeats is a whole number from 1 on, got 0'),
    ('resume=no', "resume is True or False, got 'no'"),
    ('load_from=3', 'load_from is a text or None, got 3'),
    ('log_level=LOUD', "log_level is a name as INFO or WARNING, got 'LOUD'"),
    ('optim_wrapper.optimizer.lr=-1', 'SGD cannot be built of dict('),
    ('optim_wrapper.optimizer.lr=fast', "SGD cannot be built of dict("),
    ('optim_wrapper.optimizer.nesterov=maybe', "optim_wrapper.optimizer.nesterov is True or False, got 'maybe'"),
]
TYPES = [
    ('model.type=mmcrrcd.CRRDC', "type='mmcrrcd.CRRDC' is in no registry of a model; did you mean 'CRRCD'?"),
    ('model.student.backbone.type=mmcrrcd.ResNetCIFR', "did you mean 'ResNetCIFAR'?"),
    ('model.student.neck.type=GlobalAveragePool', "did you mean 'GlobalAveragePooling'?"),
    ('train_dataloader.dataset.type=CustomDatset', "is in no registry of a dataset; did you mean 'CustomDataset'?"),
    ('train_dataloader.sampler.type=DefaultSample', "did you mean 'DefaultSampler'?"),
    ('optim_wrapper.optimizer.type=SDG', "type='SDG' is in no registry of a optimizer"),
    ('optim_wrapper.type=OptimWraper', "did you mean 'OptimWrapper'?"),
    ('param_scheduler.type=MultiStepRL', "did you mean 'MultiStepLR'?"),
    ('default_hooks.checkpoint.type=CheckpointHok', "did you mean 'CheckpointHook'?"),
    ('val_evaluator.type=mmcrrcd.BatchAcuracy', "did you mean 'BatchAccuracy'?"),
    ('train_dataloader.collate_fn.type=pseudo_colate',
     "type='pseudo_colate' is in no registry of a function; did you mean 'pseudo_collate'?"),
]
TRIALS = [
    ('val_evaluator.topk=[]', 'val_evaluator: topk are whole numbers from 1 on, got []'),
    ('val_evaluator.topk=[9]', 'val_evaluator: topk=9, and the network has 4 classes'),
    ('default_hooks.checkpoint.save_best=accuracy/top5', "save_best='accuracy/top5' is no metric of val_evaluator"),
    ('train_dataloader.collate_fn.type=pseudo_collate', 'train_dataloader'),
    ('val_dataloader.collate_fn.type=default_collate', 'val_dataloader'),
    ('train_dataloader.batch_size=23', 'the last batch of each epoch has one image'),
    ('val_evaluator.type=Accuracy', 'val_evaluator: Accuracy is for samples of a pipeline of mmpretrain'),
]
MORE = {'train_dataloader.sampler.num_repeats=0': ['train_dataloader.sampler.type=RepeatAugSampler'],
        'visualizer.save_dir=3': ['visualizer.type=Visualizer'],
        'model.student.head.loss.loss_weight=-1': ['model.student.head.loss.type=CrossEntropyLoss'],
        'train_dataloader.batch_size=23': ['model.data_preprocessor.resolution=4', 'model.num_negatives=64'],
        'model.objective.x.rate=1e30': ['model.objective.x.type=mmcrrcd.FTLoss', 'model.objective.x.paraphraser_epochs=0'],
        'model.objective.at.wieght=1': ['model.objective.at.type=mmcrrcd.ATLoss']}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config('unused', crrcd(write_teacher(tmp_path / 'teacher.pth')), epochs=1, custom_hooks=[
        dict(type=f'mmcrrcd.{kind}') for kind in ('EpochSeedHook', 'PlainCheckpointHook', 'FiniteHook', 'CheckInputHook')],
           ).dump('run.py')
    return tmp_path


def line_of(*options: str, file: str = 'run.py') -> str:
    """What tools/train.py ends with, which is one line; no checkpoint is there then."""
    with pytest.raises(SystemExit) as error:
        train.main([file, '--work-dir', 'out', *(['--cfg-options', *options] if options else [])])
    line = str(error.value)
    assert line.startswith('error: ') and '\n' not in line and len(line) < 600, line
    assert not list(Path('out').glob('*.pth'))
    return line


@pytest.mark.parametrize('option, said', NAMES + VALUES + TYPES + TRIALS, ids=lambda text: text[:40])
def test_one_line_for_a_wrong_setting(here, option, said):
    assert said in line_of(option, *MORE.get(option, ()))


@pytest.mark.parametrize('custom, said', [
    ([dict(data_src='loss', window_size='epoc')], "custom_cfg.0.window_size is a whole number from 1 on, got 'epoc'"),
    ([dict(data_src='loss', method='max')], "custom_cfg.0 has no setting 'method'"), (['loss'], 'is a list of dicts')])
def test_what_the_log_shows(custom, said):
    with pytest.raises(InputError, match=said):
        check_settings(Config(dict(log_processor=dict(custom_cfg=custom))))


def test_a_hook_of_a_library_that_does_not_fit_is_one_line(here):
    cfg = Config.fromfile('run.py')
    for hook, said in ((dict(type='SetAdaptiveMarginsHook'), 'error: SetAdaptiveMarginsHook: '),
                       (dict(type='EMAHook', momentun=0.1), "error: EMAHook: "),
                       (dict(type='EMAHook', begin_epoch=9), 'error: EMAHook: self.begin_epoch should be smaller')):
        cfg.custom_hooks = [hook]
        cfg.dump('run.py')
        assert line_of().startswith(said)


@pytest.mark.parametrize('words, said', [
    (['novalue'], "error: --cfg-options takes KEY=VALUE, got 'novalue'"),
    (['=3'], "error: --cfg-options takes KEY=VALUE, got '=3'"), (['a=[1,2'], 'error: --cfg-options a=[1,2')])
def test_options_that_cannot_be_read(here, words, said):
    assert line_of(*words).startswith(said)


@pytest.mark.parametrize('text, said', [
    ('model = dict(', 'run.py, line'), ("raise ImportError('gone')", 'ImportError: gone'),
    ('a = b', "run.py, line 1: NameError"),
    ('a = 1 / 0', 'ZeroDivisionError'), ("_base_ = 'gone.py'", 'gone.py'), ('', 'has no model'),
    ("model = 'crrcd'", 'has no model'), ("raise KeyError('x')", "KeyError: x")])
def test_damaged_configs(here, text, said):
    Path('run.py').write_text(text)
    assert said in line_of()


@pytest.mark.parametrize('section', ['model', 'train_dataloader', 'train_cfg', 'optim_wrapper'])
def test_a_missing_section(here, section):
    cfg = Config.fromfile('run.py')
    cfg.pop(section)
    cfg.dump('run.py')
    assert f'run.py has no {section}' in line_of()


@pytest.mark.parametrize('name', ['val_evaluator', 'val_cfg'])
def test_sections_that_belong_together(here, name):
    assert 'val_' in line_of(f'{name}=None')


@pytest.mark.parametrize('wrong, right', [('trian_cfg', 'train_cfg'), ('custom_hook', 'custom_hooks'),
                                          ('param_schedulers', 'param_scheduler'), ('randomnes', 'randomness')])
def test_a_misspelt_part_of_a_config(wrong, right):
    with pytest.raises(InputError, match=f"the config has no setting '{wrong}'; did you mean '{right}'"):
        check_settings(Config({wrong: dict()}))


def test_what_helps_to_write_a_config_is_left_alone(tmp_path):
    check_settings(Config(dict(pack=dict(type='Nothing'), workers=dict(n=1), train_pipeline=[], model={}, models=3, lr=1)))
    with pytest.raises(InputError, match='data_root is a folder, got 3'):
        merge_options(Config(dict(data_root='images')), dict(data_root=3))
    cfg = Config(dict(network=dict(depth=8), model=dict(depth=8)))
    with pytest.raises(InputError, match="'network' only helps to write the config"):
        merge_options(cfg, {'network.depth': 20})


@pytest.mark.parametrize('path', sorted((Path(__file__).parents[2] / 'configs').glob('[!_]*/*.py')), ids=lambda path: path.stem)
def test_the_configs_of_this_package_have_no_wrong_setting(path):
    if path.stem != '_base_':
        check_settings(read_config(path))


def test_a_batch_that_leaves_nothing(here):
    assert 'train_dataloader has no batch: 24 images, batch_size=25' in line_of(
        'train_dataloader.batch_size=25', 'train_dataloader.drop_last=True', 'model.num_negatives=64')


@pytest.mark.parametrize('loss', ['DISTLoss', 'SRDLoss'])
def test_a_last_batch_too_small_for_a_loss(here, loss):
    line = line_of('train_dataloader.batch_size=23', 'model.num_negatives=64', f'model.objective.x.type=mmcrrcd.{loss}')
    assert 'the last batch of each epoch has size 1: x: ' in line and 'drop_last=True' in line


def test_labels_outside_the_classes_name_the_file(here):
    files = write_folder(here / 'images', seed=0)
    (files / 'list.txt').write_text(''.join(f'{path.relative_to(files)} {int(path.parent.name[-1]) + 1}\n'
                                            for path in sorted(files.glob('*/*.png'))))
    loader = pipeline_loader(files, training=True)
    loader['dataset'].update(ann_file='list.txt', data_prefix='')
    cfg = Config.fromfile('run.py')
    cfg.train_dataloader = loader
    cfg.dump('run.py')
    assert 'list.txt go from 1 to 4, and the network has 4 classes, 0 to 3' in line_of()


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04', b'no checkpoint', [1], dict(a='text'), 'cut'])
def test_damaged_checkpoints_to_start_from(here, content):
    if content == 'cut':
        content = (here / 'teacher.pth').read_bytes()[:-300]
    if isinstance(content, bytes):
        Path('some.pth').write_bytes(content)
    else:
        torch.save(content, 'some.pth')
    assert 'some.pth' in line_of('load_from=some.pth')


def test_a_trial_changes_nothing(here, monkeypatch):
    """The same weights after a training with and without it, and all generators as they were."""
    from mmcrrcd.engine.hooks import check_input

    def weights(work_dir):
        train.main(['run.py', '--work-dir', work_dir, '--cfg-options', 'custom_hooks.0.type=mmcrrcd.PlainCheckpointHook'])
        state = torch.load(f'{work_dir}/epoch_1.pth', weights_only=False)['state_dict']
        return state, (random.random(), np.random.rand(), torch.rand(1).item())

    with_trial = weights('with')
    monkeypatch.setattr(check_input, 'try_batches', lambda runner: None)
    without = weights('without')
    torch.testing.assert_close(with_trial[0], without[0], rtol=0, atol=0)
    assert with_trial[1] == without[1]


def test_a_bug_keeps_its_traceback(here, monkeypatch):
    from mmcrrcd.models import CRRCD

    def broken(self, *args, **kwargs):
        raise TypeError('a bug')

    monkeypatch.setattr(CRRCD, '_try_networks', broken)
    with pytest.raises(TypeError, match='a bug'):
        train.main(['run.py', '--work-dir', 'out'])


@pytest.mark.parametrize('train_pair, val_pair, fits', [
    (None, None, True), (dict(resolution=8), dict(resolution=8), True), (dict(resolution=8), None, False),
    (None, dict(resolution=8), False), (dict(resolution=8), dict(resolution=4), False),
    (dict(resolution=8), dict(resolution=8, upsample=True), False)])
def test_the_student_is_tested_on_what_it_learns_from(train_pair, val_pair, fits):
    """Also where a wrapper is around the data set of the training."""
    def dataset(pair):
        steps = [] if pair is None else [dict(type='mmcrrcd.ResolutionPair', **pair)]
        return dict(type='CustomDataset', pipeline=[dict(type='LoadImageFromFile'), *steps, dict(type='PackInputs')])

    wrapped = dict(type='RepeatDataset', dataset=dataset(train_pair))
    cfg = Config(dict(model=dict(type='CRRCD'), train_dataloader=dict(dataset=wrapped),
                      val_dataloader=dict(dataset=dataset(val_pair))))
    if fits:
        return check_pairs(cfg, 'val_dataloader', 'test_dataloader')
    with pytest.raises(InputError, match='the pipeline of train_dataloader has .* and that of val_dataloader '):
        check_pairs(cfg, 'val_dataloader')
    cfg.model.data_preprocessor = dict(resolution=8)     # which makes what the student sees in both
    check_pairs(cfg, 'val_dataloader')


def test_a_work_directory_is_resumed_from_as_its_last_checkpoint(here):
    train.main(['run.py', '--work-dir', 'out'])
    train.main(['run.py', '--work-dir', 'other', '--resume', 'out', '--cfg-options', 'train_cfg.max_epochs=2'])
    assert torch.load('other/epoch_2.pth', weights_only=True)['meta']['epoch'] == 2
