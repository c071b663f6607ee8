"""Somebody's mmpretrain project, by mmpretrain's own tools/train.py and tools/test.py, which `mim train mmpretrain` runs, too.

The tools stack images (default_collate). Networks and images are tiny.
"""
import copy
import re
import runpy
import sys
from pathlib import Path

import mmpretrain
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.models import build_classifier
from tiny import CLASSES, SIZE, write_folder

from mmcrrcd.checkpoint import read_checkpoint
from mmcrrcd.errors import InputError
from mmcrrcd.registry import MODELS

TOOLS = Path(mmpretrain.__file__).parent / '.mim' / 'tools'
README = (Path(__file__).parents[1] / 'README.md').read_text(encoding='utf-8')
GAP = dict(type='GlobalAveragePooling')
HOOKS = [dict(type=f'mmcrrcd.{name}') for name in ('CheckInputHook', 'FiniteHook', 'PlainCheckpointHook')]


def classifier(backbone: dict, width: int, neck: dict | None = GAP, head: str = 'LinearClsHead', **settings) -> dict:
    return dict(type='ImageClassifier', backbone=backbone, **({'neck': neck} if neck else {}),
                head=dict(type=head, num_classes=CLASSES, in_channels=width) | settings)


def resnet(width: int = 8, **settings) -> dict:
    return classifier(dict(type='ResNet_CIFAR', depth=18, stem_channels=8, base_channels=width), 8 * width, **settings)


@pytest.fixture(scope='module')
def images(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('images')
    write_folder(root / 'train', seed=0)
    write_folder(root / 'val', seed=1)
    return root


@pytest.fixture
def here(tmp_path, monkeypatch, images) -> Path:
    monkeypatch.chdir(tmp_path)
    Path('images').symlink_to(images)
    return tmp_path


def loader(split: str, *steps: dict, shuffle: bool = False, pack: dict | None = None) -> dict:
    pipeline = [dict(type='LoadImageFromFile'), *steps, pack or dict(type='PackInputs')]
    return dict(batch_size=8, num_workers=0, persistent_workers=False, sampler=dict(type='DefaultSampler', shuffle=shuffle),
                dataset=dict(type='CustomDataset', data_root=f'images/{split}', pipeline=pipeline))


def write(model: dict | None = None, name: str = 'project.py', preprocessor: dict | None = None, steps=(), **changes) -> str:
    """A text config; ``changes`` of the whole, of the model, and of the preprocessor."""
    preprocessor = dict(type='mmcrrcd.PairPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                        to_rgb=True, resolution=8) | (preprocessor or {})
    model = dict(type='mmcrrcd.CRRCD', student=resnet(), teacher=resnet(16), input_size=SIZE, num_negatives=12,
                 num_anchors=4) | (model or {})
    evaluator = dict(type='Accuracy', topk=(1, ))
    cfg = dict(
        default_scope='mmpretrain', model=model, data_preprocessor=preprocessor, randomness=dict(seed=0), log_level='WARNING',
        train_dataloader=loader('train', *steps, dict(type='RandomFlip', prob=0.5), shuffle=True),
        val_dataloader=loader('val', *steps), test_dataloader=loader('val', *steps), val_evaluator=evaluator,
        test_evaluator=evaluator, val_cfg=dict(), test_cfg=dict(), train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)), custom_hooks=HOOKS, work_dir='run') | changes
    Config(cfg, format_python_code=False).dump(name)
    return name


def mmpretrains(tool: str, *argv: str) -> None:
    """Runs mmpretrain's own tool, as its users do, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [f'{tool}.py', *argv])
        patch.delenv('LOCAL_RANK', raising=False)
        runpy.run_path(str(TOOLS / f'{tool}.py'), run_name='__main__')


def test_train_resume_test_and_test_time_augmentation(here):
    mmpretrains('train', write())
    mmpretrains('train', write(train_cfg=dict(by_epoch=True, max_epochs=2)), '--resume')
    assert read_checkpoint('run/epoch_2.pth')['meta']['iter'] == 6 and not Path('run/epoch_3.pth').exists()
    mmpretrains('test', write(), 'run/epoch_2.pth', '--out', 'plain.json', '--out-item', 'metrics')
    mmpretrains('test', write(), 'run/epoch_2.pth', '--tta', '--out', 'tta.json', '--out-item', 'metrics')
    for file in ('plain.json', 'tta.json'):
        assert 'accuracy/top1' in Path(file).read_text()


def test_test_time_augmentation_flips_what_the_student_sees(here):
    mmpretrains('train', write())
    pair = [dict(type='mmcrrcd.ResolutionPair', resolution=8)]
    pack = dict(type='PackInputs', algorithm_keys=('img_low', ))
    with pytest.raises(InputError, match='test_dataloader: RandomFlip comes after ResolutionPair') as error:
        mmpretrains('test', write(test_dataloader=loader('val', *pair, pack=pack)), 'run/epoch_1.pth', '--tta')
    assert '\n' not in str(error.value)


PYTHON_FORM = '''
from mmengine.dataset import DefaultSampler
from mmcv.transforms import LoadImageFromFile, RandomFlip
from mmpretrain.datasets import CustomDataset, PackInputs
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import ConvNeXt, GlobalAveragePooling, ImageClassifier, LinearClsHead, ResNet_CIFAR
from torch.optim import SGD
from mmcrrcd.engine import CheckInputHook, FiniteHook, PlainCheckpointHook
from mmcrrcd.models import CRRCD, PairPreprocessor

default_scope = 'mmpretrain'
student = dict(type=ImageClassifier, backbone=dict(type=ResNet_CIFAR, depth=18, stem_channels=8, base_channels=8),
               neck=dict(type=GlobalAveragePooling), head=dict(type=LinearClsHead, num_classes=4, in_channels=64))
teacher = dict(type=ImageClassifier, backbone=dict(type=ConvNeXt, arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 16])),
               head=dict(type=LinearClsHead, num_classes=4, in_channels=16))
model = dict(type=CRRCD, student=student, teacher=teacher, input_size=32, num_negatives=12, num_anchors=4)
data_preprocessor = dict(type=PairPreprocessor, mean=[123.] * 3, std=[57.] * 3, to_rgb=True, resolution=8)
steps = [dict(type=LoadImageFromFile), dict(type='Resize', scale=32)]
train_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False, sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(type=CustomDataset, data_root='images/train', pipeline=[*steps, dict(type=PackInputs)]))
val_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False, sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=CustomDataset, data_root='images/val', pipeline=[*steps, dict(type=PackInputs)]))
val_evaluator = dict(type=Accuracy, topk=(1, ))
val_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.01))
custom_hooks = [dict(type=CheckInputHook), dict(type=FiniteHook), dict(type=PlainCheckpointHook)]
log_level = 'WARNING'
'''


def test_a_config_in_pythons_form(here):
    Path('pure.py').write_text(PYTHON_FORM)
    mmpretrains('train', 'pure.py', '--work-dir', 'run')
    assert Path('run/epoch_1.pth').is_file()


def test_a_plain_students_checkpoint_fills_the_student(here):
    torch.manual_seed(5)
    plain = build_classifier(resnet())
    torch.save(dict(state_dict=plain.state_dict()), 'plain.pth')
    frozen = dict(optimizer=dict(type='SGD', lr=0.0))
    mmpretrains('train', write(load_from='plain.pth', optim_wrapper=frozen))
    weights = read_checkpoint('run/epoch_1.pth')['state_dict']
    for name, value in plain.named_parameters():
        assert torch.equal(weights[f'student.{name}'], value)
    with pytest.raises(InputError, match="plain.pth is not a checkpoint of this student: .*prefix='backbone'"):
        mmpretrains('train', write(dict(student=resnet(16)), load_from='plain.pth'), '--work-dir', 'other')


def test_rectangular_images(here):
    steps = [dict(type='Resize', scale=(12, 16))]        # width, height
    mmpretrains('train', write(dict(input_size=(16, 12)), steps=steps))
    with pytest.raises(InputError, match=r'model.input_size is 16, .* 16 x 12 pixels: say input_size=\(16, 12\)'):
        mmpretrains('train', write(steps=steps), '--work-dir', 'other')


@pytest.mark.parametrize('step', [dict(type='torchvision/ToTensor'), dict(type='mmpretrain.NumpyToPIL', to_rgb=True)])
def test_floats_of_another_range_are_refused_in_one_line(here, step):
    steps = [step] if step['type'] == 'torchvision/ToTensor' else [step, dict(type='torchvision/ToTensor')]
    with pytest.raises(InputError, match='the images are floats from 0 to .*, and a PairPreprocessor takes 0 to 255') as error:
        mmpretrains('train', write(train_dataloader=loader('train', *steps)))
    assert '\n' not in str(error.value)


def test_floats_from_0_to_255_are_rounded_where_the_camera_would(here):
    """mmpretrain's Lighting makes such, and LoadImageFromFile(to_float32=True)."""
    images = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float() * 0.99
    preprocessor = MODELS.build(dict(type='mmcrrcd.PairPreprocessor', mean=[0.] * 3, std=[1.] * 3, resolution=4))
    high, low = preprocessor(dict(inputs=images, data_samples=None), training=True)['inputs']
    torch.testing.assert_close(high, images)
    assert torch.equal(low, low.round()) and low.max() > 1


def test_layer_wise_decay_of_the_students_rates(here):
    vit = classifier(dict(type='VisionTransformer', img_size=16, patch_size=4, arch=dict(
        embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=16)), 16, None, 'VisionTransformerClsHead')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(type='mmcrrcd.CRRCD', student=copy.deepcopy(vit), teacher=copy.deepcopy(vit), input_size=16,
                                  data_preprocessor=dict(type='mmcrrcd.PairPreprocessor', mean=[0.] * 3, std=[1.] * 3)))
    plain = build_classifier(copy.deepcopy(vit))
    for name, _ in plain.named_parameters():
        assert model.get_layer_depth(f'student.{name}') == plain.get_layer_depth(name)
    assert model.get_layer_depth('losses.rcd.student_map.weight') == plain.get_layer_depth('head.layers.head.weight')
    decay = dict(constructor='LearningRateDecayOptimWrapperConstructor', paramwise_cfg=dict(layer_decay_rate=0.5),
                 optimizer=dict(type='SGD', lr=0.01, weight_decay=1e-4))
    mmpretrains('train', write(dict(student=vit), preprocessor=dict(resolution=16), optim_wrapper=decay))
    with pytest.raises(InputError, match='a ResNet_CIFAR does not tell the depth of its layers'):
        mmpretrains('train', write(optim_wrapper=decay), '--work-dir', 'other')


@pytest.mark.parametrize('hook, model', [
    (dict(type='ClassNumCheckHook'), {}),
    (dict(type='PreciseBNHook', num_samples=16), {}),
    (dict(type='SwitchRecipeHook', schedule=[dict(action_epoch=1, loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
                                                  batch_augments=dict(augments=[dict(type='Mixup', alpha=0.8)]))]),
     dict(sampling='unsupervised'))])
def test_hooks_of_mmpretrain(here, hook, model):
    mmpretrains('train', write(model, custom_hooks=[hook, *HOOKS]))
    assert Path('run/epoch_1.pth').is_file()


def test_class_num_check_hook_still_finds_a_wrong_number(here):
    student, teacher = (resnet(width, num_classes=5) for width in (8, 16))
    with pytest.raises(AssertionError, match='num_classes'):
        mmpretrains('train', write(dict(student=student, teacher=teacher), custom_hooks=[dict(type='ClassNumCheckHook')]))


TEACHERS = dict(
    resnet50=classifier(dict(type='ResNet', depth=50, stem_channels=8, base_channels=8, out_indices=(0, 1, 2, 3)), 256),
    convnext=classifier(dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 16])), 16, None),
    swin=classifier(dict(type='SwinTransformer', arch=dict(embed_dims=12, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
                         img_size=64, window_size=2, out_indices=(0, 1, 2, 3)), 96),
    vit=classifier(dict(type='VisionTransformer', img_size=64, patch_size=8, arch=dict(
        embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=48)), 24, None, 'VisionTransformerClsHead'))
STUDENTS = dict(
    resnet=resnet(),
    mobilenet_v3=classifier(dict(type='MobileNetV3', arch='small', out_indices=(0, 1, 3, 8, 12)), 576,
                            head='StackedLinearClsHead', mid_channels=[32], act_cfg=dict(type='HSwish')),
    efficientnet=classifier(dict(type='EfficientNet', arch='b0', out_indices=(1, 2, 3, 4, 6)), 1280))


@pytest.mark.parametrize('teacher, student', [('convnext', 'resnet')] + [
    pytest.param(teacher, student, marks=pytest.mark.slow) for teacher in TEACHERS for student in STUDENTS
    if (teacher, student) != ('convnext', 'resnet')])
def test_recipes_of_stock_configs(here, teacher, student):
    """Everything that recipes of mmpretrain switch on, at once; FitNet and AT find the stages. Then it goes on."""
    objective = dict(fitnet=dict(type='mmcrrcd.FitNetLoss', weight=0.1), at=dict(type='mmcrrcd.ATLoss', weight=1.0))
    augment = [dict(type='RandAugment', policies='timm_increasing', num_policies=2, total_level=10, magnitude_level=9,
                    magnitude_std=0.5), dict(type='RandomErasing', erase_prob=0.25, mode='rand')]
    resize = dict(type='Resize', scale=64)
    model = dict(teacher=TEACHERS[teacher], student=STUDENTS[student], input_size=64, objective=objective)
    recipe = dict(
        train_dataloader=loader('train', resize, *augment, shuffle=True), val_dataloader=loader('val', resize),
        custom_hooks=[dict(type='EMAHook', momentum=0.1, update_buffers=True), *HOOKS,
                      dict(type='EarlyStoppingHook', monitor='accuracy/top1', patience=5)],
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3), accumulative_counts=2, clip_grad=dict(max_norm=5.0)),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=True, end=1, convert_to_iter_based=True),
                         dict(type='CosineAnnealingLR', by_epoch=True, begin=1, end=4, T_max=3)])
    mmpretrains('train', write(model, preprocessor=dict(resolution=32), **recipe))
    mmpretrains('train', write(model, preprocessor=dict(resolution=32), **recipe,
                               **dict(train_cfg=dict(by_epoch=True, max_epochs=2))), '--resume')
    checkpoint = read_checkpoint('run/epoch_2.pth')
    assert checkpoint['meta']['iter'] == 6 and checkpoint['ema_state_dict']
    before = read_checkpoint('run/epoch_1.pth')['state_dict']
    name = 'losses.fitnet.regressor.0.weight'
    assert not torch.equal(before[name], checkpoint['state_dict'][name])


@pytest.mark.parametrize('teacher', ['convnext', 'vit'])
def test_stages_without_feature_maps_of_their_own(teacher):
    """What the hooks catch are the maps that the backbone itself would give, and the teacher's answer is what it was."""
    from mmcrrcd.models.networks import ask_for_feature_maps, extract
    settings = copy.deepcopy(TEACHERS[teacher])
    torch.manual_seed(0)
    network, images = build_classifier(settings).eval(), torch.rand(2, 3, 64, 64)
    before = extract(network, images)
    ask_for_feature_maps(network)
    maps, _, logits, *_ = extract(network, images)
    assert before.feature_maps == () and torch.equal(before.logits, logits)
    assert not any('kept' in vars(module) for module in network.modules())
    if teacher == 'vit':
        network.backbone.out_type, network.backbone.out_indices = 'featmap', [0, 1]      # the last has a norm behind it
        expected, maps = network.backbone(images), maps[:2]
    else:
        x, expected = images, []
        for reduce, stage in zip(network.backbone.downsample_layers, network.backbone.stages):
            x = stage(reduce(x))
            expected.append(x)
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_readmes_project_as_it_stands_there(here):
    snippet, = re.findall(r'```python\n(_base_ = .*?)```', README, re.DOTALL)
    configs = TOOLS.parent / 'configs'
    Path('configs/resnet').mkdir(parents=True)
    Path('configs/_base_').symlink_to(configs / '_base_')
    Path('configs/resnet/resnet18_8xb32_in1k.py').symlink_to(configs / 'resnet' / 'resnet18_8xb32_in1k.py')
    project = Path('configs/resnet/project.py')
    project.write_text(snippet)
    cfg = Config.fromfile(project)
    torch.save(build_classifier(cfg.model.teacher.to_dict()).state_dict(), cfg.model.teacher_checkpoint)
    options = ['train_cfg.max_epochs=1']
    for name, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):            # four images as ImageNet
        Path(f'{split}.txt').write_text(''.join(f'class{i}/{i:03}.png {i}\n' for i in range(CLASSES)))
        options += [f'{name}_dataloader.{setting}' for setting in (
            'batch_size=2', 'num_workers=0', 'persistent_workers=False', 'dataset.data_root=images',
            f'dataset.ann_file={here}/{split}.txt')]
    mmpretrains('train', str(project), '--work-dir', 'run', '--cfg-options', *options)
    assert Path('run/epoch_1.pth').is_file()


def test_the_pages_mixed_images(here):
    page = (Path(__file__).parents[1] / 'docs' / 'mmpretrain.md').read_text(encoding='utf-8')
    snippet, = (each for each in re.findall(r'```python\n(.*?)```', page, re.DOTALL) if 'batch_augments' in each)
    cfg = Config.fromfile(write())
    exec(snippet, dict(model=cfg.model, data_preprocessor=cfg.data_preprocessor))
    cfg.dump('mixed.py')
    mmpretrains('train', 'mixed.py')
    assert Path('run/epoch_1.pth').is_file()
