"""Studies: what single settings bring, on a base that the paper does not have. Data only.

An arm is what changes of the base: a field of :class:`Setting`, or a setting of the config by its dotted name. What the studies
of rates choose is typed once, in CHOSEN and CHOSEN_FREE. The plan and its reasons: docs/notes/critic_study.md.
"""
from typing import NamedTuple


class Setting(NamedTuple):
    """A training of a study, on CIFAR-100. Networks and methods as configs/ name them; ``warmup`` in epochs; ``gamma``: the
    weight of what classification and KD send into the student's backbone; ``holdout``: so many training images are held out
    and tested on, None for the test images; ``views`` of the teacher cache, 0 for the teacher itself.
    """
    method: str = 'crrcd'
    teacher: str = 'resnet56'
    student: str = 'vgg8'
    resolution: int | None = 8
    images_per_class: int | None = None
    holdout: int | None = None
    epochs: int = 30
    batch: int = 96
    lr: float = 0.05
    warmup: int = 0
    gamma: float = 1.0
    views: int | str = 0


class Study(NamedTuple):
    """``arms``: label -> changes of ``base``; ``reference``: the label that the others are compared with; ``seeds`` by default;
    ``evaluation``: of experiments/evaluate.py, and ``columns``: from a title to a key of its results.
    """
    title: str
    base: Setting
    arms: dict[str, dict]
    reference: str
    seeds: int = 3
    evaluation: str = 'accuracy'
    columns: dict[str, str] = {}


def grid(arms: dict[str, dict], rates: tuple[float, ...], gammas: tuple[float, ...]) -> dict[str, dict]:
    """Each arm at each learning rate and gamma."""
    return {f'{name}{RATE}{lr}, gamma {gamma}': arm | dict(lr=lr, gamma=gamma)
            for name, arm in arms.items() for lr in rates for gamma in gammas}


def chosen(arms: dict[str, dict], found: dict[str, dict]) -> dict[str, dict]:
    """Each arm at its learning rate and gamma in ``found``; the others have those of KD."""
    return {name: arm | found.get(name, found['KD']) for name, arm in arms.items()}


RATE = ', rate '                                         # in labels, after the method
RATES, GAMMAS = (0.005, 0.01, 0.02, 0.05), (0.1, 1)
CHOSEN = {                                               # of single trainings on held-out images, or of a pilot
    'KD': dict(lr=0.05, gamma=0.1), 'KD, 1 CE': dict(lr=0.05, gamma=0.05), 'CRRCD': dict(lr=0.05, gamma=0.05),
    'CRRCD, learned F': dict(lr=0.05, gamma=1), 'student-only': dict(lr=0.01, gamma=1)}
CHOSEN_RESNET20 = {                                      # of `few_resnet20_rates`
    'student-only': dict(lr=0.05, gamma=1), 'KD': dict(lr=0.05, gamma=1), 'KD, 1 CE': dict(lr=0.05, gamma=1),
    'CRRCD': dict(lr=0.05, gamma=0.1), 'DKD': dict(lr=0.1, gamma=1),
    **{f'CRRCD, {name} for KD': dict(lr=0.05, gamma=0.1) for name in ('DKD', 'DIST')}}
CHOSEN_FREE = {                                          # without labels, of a pilot
    'KD': dict(lr=0.01), **{name: dict(lr=0.05) for name in ('cosine regression', 'SRD', 'ITRD', 'CRRCD')}}
FEW = Setting(images_per_class=100, epochs=40, warmup=1, views=8)
HELD = FEW._replace(holdout=5000)

KD = dict(method='kd')                                   # 0.1 CE + 0.9 KD
KD_TODAY = {'method': 'kd', 'model.cls_weight': 1, 'model.objective.kd.weight': 0.5}
KD_MORE_CE = {'method': 'kd', 'model.cls_weight': 1}
BESIDE = {'model.cls_weight': 1, 'model.alpha': 0.9}     # the weights of the same KD beside a relational loss
DIRECTION = {'method': 'crrcd', **BESIDE, 'model.beta': 1}
LEARNED = {'method': 'crrcd_learned', **BESIDE}
OWN = {'KD': KD, 'CRRCD, learned F': LEARNED, 'CRRCD': DIRECTION}
RIVALS = {'student-only': dict(method='student'), 'LSKD': dict(method='lskd'), 'DIST': dict(method='dist'),
          'WTTM': dict(method='wttm'), 'CRD': dict(method='crd'), 'ITRD': dict(method='itrd'), 'SRD': dict(method='srd'),
          **{f'KD + {name}': KD_MORE_CE | {f'model.objective.{name.lower()}': dict(type=f'mmcrrcd.{name}Loss', weight=1)}
             for name in ('ITRD', 'SRD')}, 'SimKD': dict(method='simkd'), 'DKD': dict(method='dkd'),
          'FitNet': dict(method='fitnet')}


def weighted(arm: dict, ce: float, kd: float) -> dict:
    """KD or CRRCD with other weights of classification and KD."""
    return arm | {'model.cls_weight': ce, 'model.objective.kd.weight' if arm['method'] == 'kd' else 'model.alpha': kd}


def direction(**changes) -> dict:
    """CRRCD with other settings of its relational loss."""
    return DIRECTION | {f'model.{name}': value for name, value in changes.items()}


INSTEAD = {                                              # of KD, beside the relations, with the weights of RIVALS
    'CRRCD, DIST for KD': direction(alpha=0, **{'objective.dist': dict(type='mmcrrcd.DISTLoss', weight=1)}),
    'CRRCD, DKD for KD': direction(alpha=0, **{
        'objective.dkd': dict(type='mmcrrcd.DKDLoss', weight=[(0, 0.05), (3, 1)], beta=2)})}
WEIGHTS = {
    'KD': KD, 'CRRCD': DIRECTION,
    **{f'{name}, {ce} CE + {kd} KD': weighted(arm, ce, kd) for name, arm in dict(KD=KD, CRRCD=DIRECTION).items()
       for ce, kd in ((1, 0.5), (1, 0.9), (0.5, 0.9))},
    **{f'beta {beta}': direction(beta=beta) for beta in (0.5, 2)},
    **{f'tau {tau}': direction(tau=tau) for tau in (0.05, 0.2)},
    **{f'{number} anchors': direction(num_anchors=number) for number in (4, 8, 32)},
    'no queue': direction(num_negatives=None), 'queue of 4096': direction(num_negatives=4096),
    'negatives of any class': direction(sampling='unsupervised'),
    'with SRD': direction(**{'objective.srd': dict(type='mmcrrcd.SRDLoss', weight=1)}),
    'with ITRD': direction(**{'objective.itrd': dict(type='mmcrrcd.ITRDLoss', weight=1)})}

ALONE = {'model.cls_weight': 0, 'model.alpha': 0, 'model.beta': 1, 'model.sampling': 'unsupervised'}
LABEL_FREE = {
    'cosine regression': {'method': 'kd', 'model.cls_weight': 0, 'model.objective.kd.weight': 0,
                          'model.objective.cosine': dict(type='mmcrrcd.CosineLoss', weight=1)},
    **{method.upper(): {'method': method, 'model.cls_weight': 0} for method in ('srd', 'itrd', 'rkd')},
    'CRD, negatives of other classes': {'method': 'crd', 'model.cls_weight': 0},           # so it is not without labels
    'CRRCD, learned F': {'method': 'crrcd_learned', **ALONE}, 'CRRCD': {'method': 'crrcd', **ALONE}}
EMBEDDING = dict(evaluation='embedding', columns={'linear probe': 'probe', 'nearest neighbors': 'neighbors',
                                                  'retrieval, rank 1': 'rank-1', 'retrieval, mAP': 'mAP'})

FINAL = {'student-only': RIVALS['student-only'], 'KD as before': KD_TODAY | dict(lr=0.05), 'KD': KD, 'KD, 1 CE': KD_MORE_CE}
FINAL = FINAL | {name: arm for name, arm in chosen(FINAL | RIVALS | OWN, CHOSEN).items() if name != 'KD as before'}
FINAL |= {rival: FINAL[rival] | CHOSEN['KD, 1 CE'] for rival in ('KD + ITRD', 'KD + SRD')}       # whose weights they have
OTHERS = {name: FINAL[name] for name in ('student-only', 'KD', 'KD, 1 CE', 'CRRCD')}           # on other networks
VIEWS = {f'{name}, {views} views' if views else f'{name}, live teacher': FINAL[name] | dict(views=views)
         for name in ('KD', 'CRRCD') for views in (1, 4, 16, 48, 'all', 0)}

STUDIES = dict(
    views=Study('How many views of each image a teacher cache needs',
                FEW._replace(images_per_class=50), VIEWS, reference='KD, 16 views'),
    tiny=Study('Does a study work at all?', Setting(images_per_class=20, epochs=1), dict(
        student=dict(method='student'), kd=KD), reference='kd'),
    rates=Study('Learning rate and γ, on held-out training images', HELD, grid(OWN, RATES, GAMMAS) | {
        f'CRRCD{form}{RATE}{lr}, gamma 0': arm | dict(lr=lr, gamma=0)       # KD alone would train no backbone
        for form, arm in {', learned F': LEARNED, '': DIRECTION}.items() for lr in RATES},
        reference='KD, rate 0.05, gamma 1', seeds=2),
    rival_rates=Study('The same of the rivals', HELD, grid(dict(KD=KD), (0.05, ), (1, )) | grid(RIVALS, RATES, GAMMAS),
                      reference='KD, rate 0.05, gamma 1', seeds=2),
    weights=Study('Weights and settings of the relational loss, on held-out training images', HELD,
                  {name: arm | CHOSEN['KD' if arm['method'] == 'kd' else 'CRRCD'] for name, arm in WEIGHTS.items()},
                  reference='KD', seeds=2),
    few=Study('CIFAR-100, 100 images a class', FEW, FINAL, reference='KD', seeds=3),
    full=Study('CIFAR-100, all 500 images a class', FEW._replace(images_per_class=None), FINAL, reference='KD'),
    few_resnet20=Study('CIFAR-100, 100 images a class, another student', FEW._replace(student='resnet20'),
                       chosen(OTHERS | RIVALS | OWN | INSTEAD, CHOSEN_RESNET20), reference='KD'),
    full_resnet20=Study('CIFAR-100, all 500 images a class, another student',
                        FEW._replace(student='resnet20', images_per_class=None),
                        {name: arm | CHOSEN_RESNET20.get(name, {}) for name, arm in OTHERS.items()}, reference='KD'),
    few_resnet20_rates=Study(
        'Learning rate and γ of another student, on held-out training images', HELD._replace(student='resnet20'),
        grid({'KD': KD, 'KD, 1 CE': KD_MORE_CE, 'CRRCD': DIRECTION}, (0.02, 0.05, 0.1), (0.05, 0.1, 0.3, 1))
        | grid({'student-only': RIVALS['student-only']}, RATES, (1, ))
        | grid({name: arm for name, arm in (RIVALS | INSTEAD).items() if name != 'student-only'}, (0.02, 0.05, 0.1), (0.1, 1)),
        reference='KD, rate 0.05, gamma 1', seeds=1),
    few_densenet=Study('CIFAR-100, 100 images a class, a teacher by others', FEW._replace(teacher='densenet100'), OTHERS,
                       reference='KD'),
    label_free_rates=Study('Learning rates without labels, on held-out training images', HELD, {
        f'{name}{RATE}{lr}': arm | dict(lr=lr) for name, arm in (LABEL_FREE | dict(KD=KD)).items() for lr in RATES},
        reference='KD, rate 0.05', seeds=1, **EMBEDDING),
    label_free=Study('The frozen embedding, trained without labels; KD with them', FEW,
                     chosen(LABEL_FREE | dict(KD=KD), CHOSEN_FREE), reference='KD', **EMBEDDING))
