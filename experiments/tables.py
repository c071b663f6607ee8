"""The paper's tables, and the like of other data: what stands in them, what composes a run, what evaluates it. Data only.

Tables I and II are test accuracies on CIFAR-100, teacher and student at 32×32 px. The sixth pair of Table I is printed as
ResNet32x4 -> ResNet32; its numbers are those of resnet32x4 -> resnet8x4 elsewhere. Baselines are quoted there from 240-epoch
runs of the field, at the last epoch; the row of DKD shows the best one.
"""
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from mmengine.config import Config

from .compose import Recipe, ablated, compose, face, low
from .figure3 import ABLATIONS

Pair = tuple[str, str]                                   # teacher, student
UPSAMPLED = '_upsampled'                                 # end of the name of a student that sees the small images upsampled
UNTRAINED = ('teacher', 'naive')                         # methods that train no student
BEST_EPOCH = ('dkd', )                                   # rows that show the best epoch, as in the paper
NOT_AS_PUBLISHED = dict(
    wcord='the published constants were not at hand, these are ours',
    ekd='the published constants were not at hand, these are ours',
    skd='the published constants were not at hand, these are ours',
    horkd='the published constants were not at hand, these are ours',
    crcd='its gradient relations are of the gradients at the logits, and it runs for 240 epochs, not 250',
    crrcd_learned="with this package's form of the critic and weight of its loss (docs/method.md)",
    crrcd='with F^t fixed, and all of that (docs/method.md)')
NAMES = dict(teacher='teacher', student='student-only', naive='teacher on small images upsampled', fitnet='FitNet',
             wcord='WCoRD', lskd='LSKD', simkd='SimKD', student_alone='student-only', default='CRRCD',
             crrcd_learned='CRRCD, learned F')
DOWNSAMPLINGS = {                                        # the first is that of the training
    'bilinear, antialiased': dict(interpolation='bilinear', antialias=True),
    'bicubic, antialiased': dict(interpolation='bicubic', antialias=True),
    'area': dict(interpolation='area', antialias=True),
    'bilinear': dict(interpolation='bilinear', antialias=False),
    'nearest': dict(interpolation='nearest', antialias=True)}


class Table(NamedTuple):
    """``columns``: from a title to a key of the results, a row a method; without them a column a pair, the accuracy in it.
    ``paper``: method -> pair, or title of a column -> the paper's number; a method without is left out. ``evaluation`` and
    ``arguments``: of experiments/evaluate.py. ``schedule`` and ``resolution``: by default; ``fixed``: those that no option
    changes.
    ``marked``: do the paper's numbers compare? ``work``: folder of the trainings, which some tables share. ``data``: path ->
    what has to lie there. ``further``: config of a training by which all students go on before the test. ``reference``: the
    method that the others are compared with, seed by seed.
    """
    title: str
    pairs: list[Pair]
    methods: list[str]
    compose: Callable[[str, Pair, Recipe], Config]
    paper: dict[str, dict[str, float]] = {}
    columns: dict[str, str] = {}
    evaluation: str = 'accuracy'
    arguments: dict = {}
    schedule: str = 'cifar_240e'
    resolution: int | None = None
    fixed: tuple[str, ...] = ()
    marked: bool = True
    reference: str = 'kd'
    work: str = 'cifar100'
    data: dict[str, str] = {}
    note: str = ''
    further: str | None = None

    def cells(self) -> list[tuple[str, Pair]]:
        """(method, pair) of all that it has by default."""
        return [(method, pair) for method in self.methods for pair in self.pairs
                if self.columns or not self.paper or '_'.join(pair) in self.paper.get(method, {})]


def name_of(method: str) -> str:
    """The method's name in a table."""
    return NAMES.get(method, method if ' ' in method or method != method.lower() else method.upper())


def pair_name(method: str, pair: Pair) -> str:
    """What a method trains or tests of a pair: the student-only baseline has no teacher, a teacher no student."""
    return dict(student=pair[1], teacher=pair[0], naive=pair[0]).get(method, '_'.join(pair))


def paper_table(title: str, pairs: str, rows: str) -> Table:
    """Table I or II from its print: a column a pair, '-' where it has no number."""
    pairs = [tuple(pair.split('>')) for pair in pairs.split()]
    paper = {}
    for name, *numbers in map(str.split, rows.strip().splitlines()):
        paper[name] = {'_'.join(pair): float(number) for pair, number in zip(pairs, numbers, strict=True) if number != '-'}
    ours = paper.pop('crrcd')
    paper |= dict(crrcd_learned=ours, crrcd=ours)
    return Table(title, pairs, list(paper), compose, paper, reference='student', note='The paper quotes runs of 240 epochs.')


def low_table(title: str, data: str, side: int, teachers: tuple[str, ...], note: str = 'Not of the paper.') -> Table:
    """Small images: VGG8 sees them as they are, or upsampled; ``side``: pixels of the data."""
    pairs = [(teacher, student) for teacher in teachers for student in ('vgg8', f'vgg8{UPSAMPLED}')]
    note = (f'All training is with the first kind of downsampling. The teacher sees the small images upsampled to {side} px. '
            f'KD is 1 CE + 0.5 KD. {note}')
    columns = {name: name for name in DOWNSAMPLINGS} | {f'{side} px': 'full', 'M MACs': 'macs', 'minutes': 'minutes'}
    return Table(title, pairs, ['teacher', 'student', 'kd', 'crrcd_learned', 'crrcd'], partial(low, data=data), columns=columns,
                 evaluation='downsampling', arguments=dict(side=side), schedule='paper_35e', resolution=8,
                 fixed=('schedule', ), work=data, note=note)


def transfer_table(title: str, dataset: str, numbers: tuple[float, ...]) -> Table:
    """Table IV: linear classifiers on frozen embeddings."""
    methods = ('student', 'teacher', 'kd', 'fitnet', 'at', 'crd', 'sskd', 'crrcd_learned', 'crrcd')
    return Table(title, [('wrn40_2', 'shufflenetv1')], list(methods), compose,
                 {method: {dataset: number} for method, number in zip(methods, [*numbers, numbers[-1]])},
                 {dataset: 'probe', 'CIFAR-100': 'last'}, 'probe', dict(dataset=dataset), work='transfer',
                 note='A linear classifier on the frozen embeddings, mean of three, and the network itself on CIFAR-100.')


LFW = {'data/lfw/pairs.txt': "LFW's list of pairs", 'data/lfw/lfw': "LFW's faces"}
ON_WEBFACE = dict(
    pairs=[('iresnet50', 'resnet18'), ('iresnet50', f'resnet18{UPSAMPLED}')], compose=partial(face, data='webface'),
    methods=['student', 'naive', 'kd', 'crd', 'skd', 'horkd', 'crrcd_learned', 'crrcd'], schedule='face_35e', resolution=16,
    fixed=('schedule', 'resolution'), work='webface')
ON_LFW = dict(
    pairs=[('iresnet18', 'resnet18'), ('iresnet18', f'resnet18{UPSAMPLED}')], compose=partial(face, data='lfw'),
    methods=['teacher', 'naive', 'student', 'kd', 'crrcd_learned', 'crrcd'], schedule='face_35e', resolution=16,
    fixed=('schedule', 'resolution'), work='lfw')
WEBFACE = {'data/casia_webface': 'CASIA-WebFace'}
RANKS = {name: name for name in ('rank-1', 'rank-10', 'rank-20', 'mAP')}
NETWORKS = ("The student, ResNet18, sees 16×16 px, or the same upsampled. The paper's teacher is called ResNet50, ours is "
            "IResNet50; beside the teacher on small images stands the paper's ArcFace, whose training it does not describe.")

TABLES = dict(
    table1=paper_table('Table I: networks of one family', '''
        wrn40_2>wrn16_2 wrn40_2>wrn40_1 resnet56>resnet20 resnet110>resnet20 resnet110>resnet32 resnet32x4>resnet8x4 vgg13>vgg8
        ''', '''
        teacher  75.61  75.61  72.34  74.31  74.31  79.42  74.64
        student  73.26  71.98  69.06  69.06  71.14  72.50  70.36
        kd       74.92  73.54  70.66  70.67  73.08  73.33  72.98
        fitnet   73.58  72.24  69.21  68.99  71.06  73.50  71.02
        at       74.08  72.77  70.55  70.22  72.31  73.44  71.43
        pkt      74.54  73.45  70.34  70.25  72.61  73.64  72.88
        sp       73.83  72.43  69.67  70.04  72.69  72.94  72.68
        rkd      73.35  72.22  69.61  69.25  71.82  71.90  71.48
        cc       73.56  72.21  69.63  69.48  71.48  72.97  70.71
        vid      74.11  73.30  70.38  70.16  72.61  73.09  71.23
        ab       72.50  72.38  69.47  69.53  70.98  73.17  70.94
        crd      75.48  74.14  71.16  71.46  73.48  75.51  73.94
        crcd     76.37  73.84  70.89  70.98  73.32  73.50  73.89
        wcord    75.88  74.73  71.56  71.57  73.81  75.95  74.55
        dkd      76.24  74.81  71.97  -      74.11  76.32  74.68
        crrcd    76.43  74.83  72.10  71.92  74.05  75.14  74.04
        '''),
    table2=paper_table('Table II: networks of different families', '''
        resnet18>vgg8 vgg11>shufflenetv1 resnet18>shufflenetv2 wrn50>shufflenetv1 wrn50>vgg8
        ''', '''
        teacher  76.61  70.76  76.61  80.24  80.24
        student  69.21  66.18  70.48  66.18  69.21
        ft       68.06  68.16  69.99  70.51  70.12
        kd       71.17  72.40  75.03  71.78  70.31
        fitnet   70.59  70.50  72.24  70.46  70.04
        at       71.62  69.64  73.83  70.55  69.78
        pkt      72.74  72.06  74.31  69.80  69.76
        rkd      71.03  70.92  73.26  70.58  70.41
        sp       73.07  72.31  74.95  70.70  70.00
        cc       69.82  70.70  72.21  70.66  69.96
        vid      71.75  70.59  72.07  71.61  71.00
        ab       70.42  72.56  74.64  74.28  69.81
        crd      73.17  72.38  74.88  71.08  72.50
        crcd     73.54  73.07  75.35  73.58  74.13
        ekd      73.82  73.18  75.26  73.61  74.05
        crrcd    74.49  74.35  77.06  76.53  74.26
        '''),
    table3=low_table('Table III: SVHN', 'svhn', 32, ('resnet56', ),
                     'The paper has, at 8×8 px: RPC Nets 56.89, SICNN 81.53, DirectCapsNet 84.51, CSRIP 84.61, '
                     'DeriveNet 87.85, CRRCD 89.33. It does not say how it downsamples.'),
    cifar100=low_table('CIFAR-100', 'cifar100', 32, ('resnet56', 'vgg8')),
    tinyimagenet=low_table('Tiny ImageNet', 'tinyimagenet', 64, ('resnet18', 'vgg8')),
    table4_stl10=transfer_table('Table IV: CIFAR-100 → STL-10', 'stl10',
                                (71.58, 71.01, 73.25, 73.77, 73.47, 74.44, 74.74, 75.15)),
    table4_tinyimagenet=transfer_table('Table IV: CIFAR-100 → Tiny ImageNet', 'tinyimagenet',
                                       (32.43, 27.74, 32.05, 33.28, 33.75, 34.30, 34.54, 35.17)),
    table5=Table(
        'Table V: face verification on LFW', **ON_WEBFACE, columns={'accuracy': 'accuracy'}, data=WEBFACE | LFW,
        paper={method: dict(accuracy=x) for method, x in dict(naive=92.30, skd=85.87, horkd=90.03,
                                                                crrcd_learned=95.25, crrcd=95.25).items()},
        evaluation='verify', arguments=dict(pairs='data/lfw/pairs.txt', images='data/lfw/lfw'),
        note=f'Mean of the ten folds. Some people of LFW are in CASIA-WebFace, as in most published numbers. {NETWORKS}'),
    table6=Table(
        'Table VI: face identification on UCCS', **ON_WEBFACE, columns={'accuracy': 'probe'},
        data=WEBFACE | {'data/uccs': '180 people of UCCS'}, marked=False,
        paper={method: dict(accuracy=x) for method, x in dict(naive=88.73, skd=67.25, horkd=92.11,
                                                                crrcd_learned=97.27, crrcd=97.27).items()},
        evaluation='probe', arguments=dict(dataset='uccs'),
        note='A new classifier on the frozen network, mean of three. The paper drew 180 people at random and does not list '
             f'them, so its numbers are of others and carry no mark. {NETWORKS}'),
    table7=Table(
        'Table VII: face retrieval on TinyFace', **ON_WEBFACE, columns=RANKS, data=WEBFACE | {
            'data/tinyface': 'TinyFace', 'data/tinyface/Training_Set': "TinyFace's training set"}, marked=False,
        paper=dict(naive={'rank-1': 26, 'rank-10': 34, 'rank-20': 37},
                   **dict.fromkeys(('crrcd_learned', 'crrcd'), {'rank-1': 35, 'rank-10': 47, 'rank-20': 50})),
        evaluation='identify', arguments=dict(tinyface='data/tinyface'), further='face/resnet18_tinyface_16px',
        note="The paper prints two digits, 0.35 for 35. Students have been trained further, on TinyFace's training set, as the "
             f'paper says, but not how: so its numbers carry no mark. {NETWORKS}'),
    lfw=Table(
        'LFW: verification of people held out', **ON_LFW, columns={'accuracy': 'accuracy', 'equal error rate': 'eer'}, data=LFW,
        evaluation='verify', arguments=dict(pairs='data/lfw/pairs.txt', images='data/lfw/lfw', folds=[8, 9]),
        note='Not of the paper. The 1,200 pairs of folds 9 and 10, whose people were left out of the training; one standard '
             'error of them is about a point. The teacher is IResNet18 on 64×64 px, the student ResNet18 on 16.'),
    orl=Table(
        'ORL: retrieval', **ON_LFW, columns=RANKS, data=LFW | {'data/orl/orl': 'ORL'}, evaluation='identify',
        arguments=dict(orl='data/orl/orl'),
        note='Not of the paper. The first image of each of the 40 people is the gallery, the 360 others are searched for in '
             'it; one standard error of them is up to 2.6 points. The networks are those of the table above.'),
    figure3=Table(
        'Figure 3 and further ablations', [('resnet56', 'resnet20')], list(ABLATIONS), ablated, columns={'last epoch': 'last'},
        marked=False, work='figure3',
        note='All settings but the named one are the default, or, where it says so, those of the learned form. The paper has '
             'a picture here, of face verification on LFW: only what its text says is quoted.'),
)
