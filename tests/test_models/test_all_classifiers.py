"""Each backbone of mmpretrain, with the neck and head that its own configs give it, as teacher and as student."""
import mmpretrain.models.backbones as backbones
import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from tiny import STUDENT, TEACHER

from mmcrrcd.checkpoint import load_network
from mmcrrcd.engine.settings import check_settings
from mmcrrcd.errors import InputError
from mmcrrcd.models import Distiller, PairPreprocessor
from mmcrrcd.models.networks import ask_for_feature_maps, extract
from mmcrrcd.registry import MODELS

CLASSES = 4
GAP = dict(type='GlobalAveragePooling')
VIT = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
EVA = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)

# Name of the backbone: side of the images, its settings, neck (None for none), head (LinearClsHead where it is not said).
CLASSIFIERS = dict(
    AlexNet=(224, dict(num_classes=CLASSES), None, dict(type='ClsHead')),
    BEiTViT=(32, dict(arch=VIT, img_size=32), None),
    CSPDarkNet=(64, dict(depth=53), GAP),
    CSPResNeXt=(64, dict(depth=50), GAP),
    CSPResNet=(64, dict(depth=50), GAP),
    Conformer=(224, dict(arch='tiny'), None,
               dict(type='ConformerHead')),
    ConvMixer=(32, dict(arch=dict(embed_dims=16, depth=2, patch_size=4, kernel_size=3)), GAP),
    ConvNeXt=(32, dict(arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 16, 32])), None),
    DaViT=(64, dict(arch=dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]), window_size=2), GAP),
    DeiT3=(32, dict(arch=VIT, img_size=32), None, dict(type='VisionTransformerClsHead')),
    DenseNet=(64, dict(arch=dict(growth_rate=8, depths=[1, 1, 1, 1], init_channels=16)), GAP),
    DistilledVisionTransformer=(32, dict(arch=VIT, img_size=32), None, dict(type='DeiTClsHead')),
    EdgeNeXt=(64, dict(arch='xxsmall'), None),
    EfficientFormer=(224, dict(arch='l1'), GAP, dict(type='EfficientFormerClsHead')),
    EfficientNet=(32, dict(arch='b0'), GAP),
    EfficientNetV2=(32, dict(arch='b0'), GAP),
    HRNet=(64, dict(arch='w18'), [dict(type='HRFuseScales', in_channels=(18, 36, 72, 144)), GAP]),
    HiViT=(224, dict(arch='tiny', out_indices=[19]), GAP),
    HorNet=(64, dict(arch=dict(base_dim=8, depths=[1, 1, 1, 1], orders=[2, 3, 4, 5],
                               dw_cfg=[dict(type='DW', kernel_size=7)] * 4)), None),
    InceptionV3=(299, dict(num_classes=CLASSES), None, dict(type='ClsHead')),
    LeViT=(224, dict(arch='128s'), GAP, dict(type='LeViTClsHead')),
    MViT=(64, dict(arch=dict(embed_dims=16, num_layers=3, num_heads=1, downscale_indices=[1]), img_size=64), GAP),
    MixMIMTransformer=(224, dict(arch=dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])), dict(GAP, dim=1)),
    MlpMixer=(32, dict(arch=dict(embed_dims=16, num_layers=2, tokens_mlp_dims=8, channels_mlp_dims=16), img_size=32),
              dict(GAP, dim=1)),
    MobileNetV2=(32, dict(widen_factor=0.25), GAP),
    MobileNetV3=(32, dict(arch='small_050'), GAP, dict(type='StackedLinearClsHead', mid_channels=[16])),
    MobileOne=(32, dict(arch='s0'), GAP),
    MobileViT=(64, dict(arch='xx_small'), GAP),
    PCPVT=(64, dict(arch=dict(embed_dims=[8, 16, 16, 32], depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], patch_sizes=[4, 2, 2, 2],
                              strides=[4, 2, 2, 2], mlp_ratios=[2, 2, 2, 2], sr_ratios=[8, 4, 2, 1])), GAP),
    PoolFormer=(64, dict(arch='s12'), GAP),
    PyramidVig=(224, dict(arch='tiny'), GAP, dict(type='VigClsHead', hidden_dim=16)),
    RIFormer=(64, dict(arch='s12'), GAP),
    RegNet=(32, dict(arch='regnetx_400mf'), GAP),
    RepLKNet=(64, dict(arch=dict(large_kernel_sizes=[7, 7, 7, 7], layers=[1, 1, 1, 1], channels=[8, 16, 16, 32],
                                 small_kernel=5, dw_ratio=1)), GAP),
    RepMLPNet=(224, dict(arch=dict(channels=[16, 32, 64, 128], depths=[1, 1, 1, 1], sharesets_nums=[1, 4, 16, 64])), GAP),
    RepVGG=(32, dict(arch='A0'), GAP),
    Res2Net=(64, dict(depth=50), GAP),
    ResNeSt=(64, dict(depth=50), GAP),
    ResNeXt=(64, dict(depth=50), GAP),
    ResNet=(32, dict(depth=18, stem_channels=8, base_channels=8), GAP),
    ResNetV1c=(32, dict(depth=18, base_channels=8), GAP),
    ResNetV1d=(32, dict(depth=18, base_channels=8), GAP),
    ResNet_CIFAR=(32, dict(depth=18, base_channels=8), GAP),
    RevVisionTransformer=(32, dict(arch=VIT, img_size=32), None, dict(type='VisionTransformerClsHead')),
    SEResNeXt=(64, dict(depth=50), GAP),
    SEResNet=(64, dict(depth=50), GAP),
    SVT=(64, dict(arch=dict(embed_dims=[8, 16, 16, 32], depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], patch_sizes=[4, 2, 2, 2],
                            strides=[4, 2, 2, 2], mlp_ratios=[2, 2, 2, 2], sr_ratios=[8, 4, 2, 1],
                            window_sizes=[7, 7, 7, 7])), GAP),
    ShuffleNetV1=(32, dict(), GAP),
    ShuffleNetV2=(32, dict(), GAP),
    SwinTransformer=(64, dict(arch=dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]), img_size=64,
                          window_size=2), GAP),
    SwinTransformerV2=(64, dict(img_size=64, window_size=2, arch=dict(
        embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], extra_norm_every_n_blocks=0)),
                       GAP),
    T2T_ViT=(64, dict(img_size=64, embed_dims=48, num_layers=2, layer_cfgs=dict(num_heads=3, feedforward_channels=96),
                      t2t_cfg=dict(token_dims=16, use_performer=False)), None, dict(type='VisionTransformerClsHead')),
    TNT=(32, dict(arch=dict(embed_dims_outer=48, embed_dims_inner=16, num_layers=2, num_heads_outer=3, num_heads_inner=2),
                  img_size=32), None),
    TinyViT=(224, dict(arch='5m'), None),
    VAN=(64, dict(arch=dict(embed_dims=[8, 16, 16, 32], depths=[1, 1, 1, 1], ffn_ratios=[2, 2, 2, 2])), GAP),
    VGG=(64, dict(depth=11), GAP),
    ViTEVA02=(32, dict(arch=EVA, img_size=32, patch_size=16), None, dict(type='VisionTransformerClsHead')),
    ViTSAM=(64, dict(arch=dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96, global_attn_indexes=[1]),
                     img_size=64, out_channels=16, out_type='avg_featmap'), None),
    Vig=(224, dict(arch='tiny'), GAP, dict(type='VigClsHead', hidden_dim=16)),
    VisionTransformer=(32, dict(arch=VIT, img_size=32), None, dict(type='VisionTransformerClsHead')),
    XCiT=(32, dict(img_size=32, embed_dims=48, depth=2, num_heads=3), None),
)
MORE = {'VGG with its own classifier': ('VGG', 224, dict(depth=11, norm_cfg=dict(type='BN'), num_classes=CLASSES), None,
                                        dict(type='ClsHead')),
        'AlexNet of features': ('AlexNet', 224, dict(), GAP),
        'ResNet with all stages': ('ResNet', 32, dict(depth=18, base_channels=8, stem_channels=8, out_indices=(0, 1, 2, 3)),
                                   GAP),
        'ViT of maps': ('VisionTransformer', 32, dict(arch=VIT, img_size=32, out_type='featmap'), GAP),
        'LeViT without distillation': ('LeViT', 224, dict(arch='128s'), GAP, dict(type='LeViTClsHead', distillation=False)),
        'EfficientFormer without': ('EfficientFormer', 224, dict(arch='l1'), GAP,
                                    dict(type='EfficientFormerClsHead', distillation=False))}
CASES = {name: (name, *rest) for name, rest in CLASSIFIERS.items()} | MORE
# Any of timm's needs timm; CSPNet is the base of the three CSP networks; sparse ones run in SparK's pretraining alone;
# LeNet5 is for gray images, see below.
OTHERS = {'TIMMBackbone', 'CSPNet', 'SparseConvNeXt', 'SparseResNet', 'LeNet5'}
NOT_STUDENTS = {'Conformer', 'DistilledVisionTransformer', 'EfficientFormer', 'LeViT'}       # two classifiers each


def build(kind: str, side: int, settings: dict, neck, head=None) -> ImageClassifier:
    """A classifier of mmpretrain; the widths that its head takes are found out."""
    torch.manual_seed(0)
    parts = ImageClassifier(backbone=dict(type=f'mmpretrain.{kind}', **settings), neck=neck, head=None).eval()
    with torch.no_grad():
        pooled = parts.extract_feat(torch.zeros(2, 3, side, side))[-1]
    widths = [x.shape[1] for x in pooled] if isinstance(pooled, (list, tuple)) else pooled.shape[1]
    head = dict(head or dict(type='LinearClsHead'))
    if head['type'] != 'ClsHead':
        head |= dict(num_classes=CLASSES, in_channels=widths[-1] if head['type'] == 'DeiTClsHead' else widths)
    parts.head = MODELS.build(head | dict(_scope_='mmpretrain'))
    return parts.eval()


def distiller(student, teacher, side: int) -> Distiller:
    objective = dict(kd=dict(type='mmcrrcd.KDLoss'), pkt=dict(type='mmcrrcd.PKTLoss'))
    return Distiller(student, teacher, objective=objective, input_size=side,
                     data_preprocessor=PairPreprocessor([120.] * 3, [60.] * 3))


def batch(side: int, training: bool) -> dict:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (2, 3, side, side), dtype=torch.uint8, generator=generator)
    samples = [DataSample().set_gt_label(label) for label in (1, 3)]
    return PairPreprocessor([120.] * 3, [60.] * 3)(dict(inputs=list(images), data_samples=samples), training)


def test_the_list_is_complete():
    assert set(CLASSIFIERS) | OTHERS == set(backbones.__all__)


def test_a_network_of_gray_images_is_refused():
    lenet = dict(type='mmpretrain.ImageClassifier', backbone=dict(type='mmpretrain.LeNet5', num_classes=CLASSES), neck=None,
                 head=dict(type='mmpretrain.ClsHead'))
    for pair in ((lenet, TEACHER), (STUDENT, lenet)):
        with pytest.raises(InputError, match='cannot take images of 32 x 32 pixels: .* expected input.* to have 1 channels'):
            distiller(*pair, 32)


def test_maps_with_channels_last_are_turned():
    network = build(*CASES['ViTSAM'])
    ask_for_feature_maps(network)
    assert [tuple(each.shape) for each in extract(network, torch.zeros(2, 3, 64, 64)).feature_maps] == 2 * [(2, 48, 4, 4)]


@pytest.mark.parametrize('name', [name if name == 'SwinTransformerV2' else pytest.param(name, marks=pytest.mark.slow)
                                  for name in CASES])
def test_its_weights_are_loaded_and_its_settings_are_known(name, tmp_path):
    kind, side, settings, neck, *_ = CASES[name]
    trained, fresh = build(*CASES[name]), build(*CASES[name])
    for parameter in trained.parameters():
        parameter.data += 0.5
    torch.save(trained.state_dict(), tmp_path / 'teacher.pth')
    load_network(fresh, tmp_path / 'teacher.pth', 'teacher')
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), fresh.parameters()))
    check_settings(Config(dict(default_scope='mmpretrain', model=dict(
        type='ImageClassifier', backbone=dict(settings, type=kind), neck=neck, head=dict(type='ClsHead')))))


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_it_teaches(name):
    """Its answers are those that mmpretrain itself gives."""
    kind, side, *rest = CASES[name]
    teacher = build(kind, side, *rest)
    with torch.no_grad():
        images = batch(side, training=True)['inputs'].high.contiguous()
        wanted = torch.stack([sample.pred_score for sample in teacher.predict(images)])
    model = distiller(STUDENT, teacher, side)
    losses = model(**batch(side, training=True), mode='loss')
    assert all(losses[key].isfinite() for key in ('loss_cls', 'loss_kd', 'loss_pkt'))
    output = extract(model.teacher, batch(side, training=True)['inputs'].high)
    assert output.embedding.dim() == 2 and all(x.dim() == 4 for x in output.feature_maps)
    torch.testing.assert_close(output.logits.softmax(1), wanted, atol=1e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_it_learns(name):
    kind, side, *rest = CASES[name]
    student = build(kind, side, *rest)
    if name in NOT_STUDENTS:
        with pytest.raises(InputError, match='has two classifiers, which are not trained here') as error:
            distiller(student, TEACHER, side)
        assert '\n' not in str(error.value)
        return
    model = distiller(student, TEACHER, side).train()
    total, _ = model.parse_losses(model(**batch(side, training=True), mode='loss'))
    total.backward()
    assert sum(p.grad is not None and p.grad.isfinite().all() for p in model.student.parameters()) > 0
    model.eval()
    with torch.no_grad():
        answers = model(**batch(side, training=False), mode='predict')
    assert len(answers) == 2 and answers[0].pred_score.shape == (CLASSES, )
