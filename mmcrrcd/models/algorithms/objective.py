"""The losses of an objective: built from their settings, and checked against what the networks give."""
from torch import nn

from mmcrrcd.errors import InputError
from mmcrrcd.models.losses.base import DistillLoss
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import NetworkOutput

from .schedule import Schedule, check_schedule


def build_losses(objective: dict[str, dict] | None, own: frozenset[str],
                 algorithm: str) -> tuple[nn.ModuleDict, dict[str, Schedule]]:
    """The losses by their names, without those whose weight is the number 0, and the weights of all.

    Args:
        own: names of parts of the total that belong to the ``algorithm``.

    Raises:
        InputError: a name, or a weight, cannot be used; something is no loss.
    """
    check_names(objective, own, algorithm)
    losses, weights = nn.ModuleDict(), {}
    for name, settings in (objective or {}).items():
        settings = dict(settings)
        weights[name] = settings.pop('weight', 1.0)
        check_schedule(weights[name], name)
        if weights[name] != 0:
            loss = LOSSES.build(settings)
            if not isinstance(loss, DistillLoss):
                raise InputError(f'{name} is a {type(loss).__name__}; the losses of an objective derive from DistillLoss '
                                 '(docs/add_a_method.md)')
            losses[name] = loss
    return losses, weights


def check_needs(name: str, loss: DistillLoss, student: NetworkOutput, teacher: NetworkOutput | None) -> None:
    """Raises InputError where a network does not give what ``loss``, ``name`` in the objective, reads of its output."""
    needs = [('student', student, loss.student_needs)] + ([] if teacher is None else [('teacher', teacher, loss.needs)])
    for who, output, wanted in needs:
        if unknown := sorted(set(wanted) - {'logits', 'embedding', 'feature_maps', 'pre_activations'}):
            raise InputError(f'{name} needs {unknown[0]!r}, which is no part of an output: logits, embedding, feature_maps or '
                             'pre_activations')
        missing = [need for need in sorted(wanted) if getattr(output, need) in (None, ())]
        if missing == ['logits']:
            raise InputError(f'{name} compares logits, and the {who} ends in its embedding: leave {name} out '
                             '(of CRRCD by alpha=0)')
        if missing:
            what = {'feature_maps': 'feature maps', 'pre_activations': 'pre-activations'}.get(missing[0], missing[0])
            raise InputError(f"{name} needs the {who}'s {what}, and this {who} gives none: take one with a backbone of this "
                             f'package, or leave {name} out')


def check_names(objective: dict | None, own: frozenset[str], algorithm: str) -> None:
    """Raises InputError for a name in the objective that the log, or the algorithm itself, uses already."""
    for name in objective or {}:
        if name in own:
            raise InputError(f'objective: {name!r} is the name of a part of {algorithm} itself ({", ".join(sorted(own))}), '
                             'take another')
        if not isinstance(name, str) or not name.isidentifier() or 'loss' in name or hasattr(nn.ModuleDict, name):
            raise InputError(f"objective: {name!r} cannot be the name of a loss, which is one word without 'loss', as kd; the "
                             "log puts 'loss_' before it")


def why_labels(loss: DistillLoss) -> str:
    """The end of the line for a loss that needs labels where there are none."""
    return 'needs the class of each: leave one of the two out' + (f', or say {loss.without_labels}' * bool(loss.without_labels))
