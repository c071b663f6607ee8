"""Figure 3 of the paper, Sec. IV-C, and further ablations of CRRCD: changes of its default and learned form. Data only."""
import math
from typing import NamedTuple

LEARNED = dict(relation='learned', cls_weight=1, alpha=0.5, beta=0.2, backbone_gradient=1, num_negatives=512, tau=0.1,
               num_anchors=8)
OWN_KD = dict(cls_weight=1, alpha=0.5, beta=0, backbone_gradient=1)    # 1 CE + 0.5 KD, what the learned form stands beside
BASELINES = {
    'student_alone': dict(cls_weight=1, alpha=0, beta=0, backbone_gradient=1),
    'kd': OWN_KD,
    'kd_field': dict(cls_weight=0.1, alpha=0.9, beta=0, backbone_gradient=1)}     # that of configs/baselines/kd.py
CHANGES = {                                              # of both forms
    **{f'negatives_{n}': dict(num_negatives=n) for n in (64, 128, 256, 1024)},   # not fewer than the batch
    'in_batch': dict(num_negatives=None),                # no queue: the batch itself
    **{f'tau_{tau}': dict(tau=tau) for tau in (0.02, 0.05, 0.07, 0.08, 0.2, 0.3)},
    **{f'beta_{beta}': dict(beta=beta) for beta in (0.05, 0.2, 0.5, 1, 2)},
    'alpha_0': dict(alpha=0),                            # without KD
    'unsupervised': dict(sampling='unsupervised'),
    **{f'anchors_{number or "all"}': dict(num_anchors=number) for number in (1, 32, None)}}
OF_LEARNED = {                                           # its width is 128, and it is centered
    **{f'dim_{dim}': dict(dim=dim) for dim in (64, 256)},
    'softmax_not_centered': dict(center=None),
    'batch': dict(normalizer='batch'),                   # Z of the first batch, as in CRD
    'batch_not_centered': dict(normalizer='batch', center=None),
    'as_printed_beta_0.2': dict(normalizer='none', center=None, num_samples=50_000),      # Eq. 10, with this form's beta
    'as_printed': dict(normalizer='none', center=None, num_samples=50_000, beta=2)}       # Eq. 10 and the paper's beta
ABLATIONS = BASELINES | {'default': {}} | {name: change for name, change in CHANGES.items() if name != 'beta_1'} | {
    'learned': LEARNED} | {f'learned_{name}': LEARNED | changes for name, changes in (CHANGES | OF_LEARNED).items()
                           if name != 'beta_0.2'}        # each form has its default among them


class Sweep(NamedTuple):
    """One setting: a name of ABLATIONS for each value, joined by a line where they are ``ordered``; ``paper``: its words."""
    title: str
    names: dict[float | str, str]
    ordered: bool = True
    paper: dict[float | str, str] = {}

    def places(self) -> list[float]:
        """Of the values on the axis: logarithmic where all are numbers, else side by side."""
        numbers = not any(isinstance(value, str) for value in self.names)
        return [math.log2(value) if numbers else i for i, value in enumerate(self.names)]

    def of_learned(self) -> 'Sweep':
        """The same of the learned form."""
        names = {value: 'learned' if name == 'default' else f'learned_{name}' for value, name in self.names.items()}
        return self._replace(title=f'learned F: {self.title}', names=names)


OF_BOTH = dict(
    negatives=Sweep('number of negatives n', {
        64: 'negatives_64', 128: 'negatives_128', 256: 'negatives_256', 512: 'default', 1024: 'negatives_1024'},
        paper={512: 'chosen; more negatives are better', 1024: '+0.05 over 512'}),
    source=Sweep('negatives come from', {'queue': 'default', 'batch': 'in_batch'}, False,
                 {'queue': 'chosen; with negatives of another class +0.25 or more'}),
    tau=Sweep('temperature τ', {
        0.02: 'tau_0.02', 0.05: 'tau_0.05', 0.07: 'tau_0.07', 0.08: 'tau_0.08', 0.1: 'default', 0.2: 'tau_0.2',
        0.3: 'tau_0.3'}, paper={0.08: 'works well', 0.1: 'chosen; 0.08 to 0.1 works well'}),
    beta=Sweep('weight β of the relational loss', {
        0.05: 'beta_0.05', 0.2: 'beta_0.2', 0.5: 'beta_0.5', 1: 'default', 2: 'beta_2'}),
    alpha=Sweep('weight α of KD', {'0': 'alpha_0', '0.9': 'default'}, False),
    sampling=Sweep('negatives are of another', {'class': 'default', 'image': 'unsupervised'}, False,
                   {'class': 'chosen; from a queue +0.25 or more'}))
ANCHORS = {'1': 'anchors_1', '16': 'default', '32': 'anchors_32', 'all': 'anchors_all'}
SWEEPS = OF_BOTH | dict(anchors=Sweep('anchors', ANCHORS)) | {
    f'learned_{key}': sweep.of_learned() for key, sweep in OF_BOTH.items()} | dict(
    learned_anchors=Sweep('anchors', {'8' if value == '16' else value: name for value, name in ANCHORS.items()}).of_learned(),
    learned_beta=Sweep(OF_BOTH['beta'].title, {
        0.05: 'beta_0.05', 0.2: 'default', 0.5: 'beta_0.5', 1: 'beta_1', 2: 'beta_2'}).of_learned(),
    learned_alpha=Sweep(OF_BOTH['alpha'].title, {'0': 'alpha_0', '0.5': 'default'}, False).of_learned(),
    learned_dim=Sweep('width of relations and critic', {64: 'dim_64', 128: 'default', 256: 'dim_256'}).of_learned(),
    learned_forms=Sweep('form of the critic', {
        'softmax, centered': 'default', 'softmax': 'softmax_not_centered', 'Z, centered': 'batch', 'Z': 'batch_not_centered',
        'Eq. 10, β 0.2': 'as_printed_beta_0.2', 'Eq. 10, β 2': 'as_printed'}, False).of_learned(),
    baselines=Sweep('without the relational loss', {
        'student-only': 'student_alone', 'KD (1 CE + 0.5 KD)': 'kd', 'KD (0.1 CE + 0.9 KD)': 'kd_field'}, False))
