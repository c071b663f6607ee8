"""Studies: what single settings bring, on a base that the paper does not have. Data only.

An arm is what changes of the base: a field of :class:`Setting`, or a setting of the config by its dotted name.
"""
from typing import NamedTuple


class Setting(NamedTuple):
    """A training of a study. Data, networks and methods as configs/ name them; ``warmup`` in epochs; ``gamma``: the weight of
    what classification and KD send into the student's backbone; ``holdout``: so many training images are held out and tested
    on, None for the test images.
    """
    method: str = 'crrcd'
    teacher: str = 'resnet56'
    student: str = 'vgg8'
    data: str = 'cifar100'
    resolution: int | None = 8
    images_per_class: int | None = None
    holdout: int | None = None
    epochs: int = 30
    batch: int = 96
    lr: float = 0.05
    warmup: int = 0
    gamma: float = 1.0


class Study(NamedTuple):
    """``arms``: label -> changes of ``base``; ``reference``: the label that the others are compared with."""
    title: str
    base: Setting
    arms: dict[str, dict]
    reference: str

    @property
    def pair(self) -> str:
        return f'{self.base.teacher}_{self.base.student}'


OWN_KD = {'method': 'crrcd', 'model.beta': 0}            # 1 CE + 0.5 KD: CRRCD without its relational loss
FEW = Setting(images_per_class=100, holdout=5000, epochs=30, warmup=1)
RATES = (0.1, 0.05, 0.02, 0.01)

STUDIES = dict(
    tiny=Study('Does a study work at all?', Setting(images_per_class=20, epochs=1), dict(
        student=dict(method='student'), kd=OWN_KD), reference='kd'),
    rates=Study('Learning rates on held-out training images', FEW, {
        f'{name}, rate {rate}': dict(arm, lr=rate) for name, arm in dict(
            student=dict(method='student'), kd=OWN_KD, crrcd=dict(method='crrcd')).items() for rate in RATES},
        reference='kd, rate 0.05'))
