"""A frozen teacher, a student, and an objective: every method of this package runs through here."""
import logging

import torch
from mmengine.logging import MessageHub, print_log
from mmengine.model import BaseModel
from mmpretrain.models import ImageClassifier
from torch import Tensor, nn

from mmcrrcd.checkpoint import load_network, names_in_student
from mmcrrcd.datasets.transforms.resolution_pair import check_size, sides
from mmcrrcd.errors import InputError, explained
from mmcrrcd.models.classification import check_head, classification_loss
from mmcrrcd.models.losses.base import DistillLoss
from mmcrrcd.models.networks import (ask_for_feature_maps, ask_for_pre_activations, check_network, extract, in_its_format,
                                     use_channels_last)
from mmcrrcd.models.preprocessor import PairPreprocessor, check_reads_cache
from mmcrrcd.models.teachers.adapters import ForeignNetwork, PlainNetwork
from mmcrrcd.models.teachers.cache import TeacherCache
from mmcrrcd.models.teachers.frozen import fold
from mmcrrcd.registry import ALGORITHMS, MODELS
from mmcrrcd.structures import Batch, Pair, NetworkOutput

from .objective import build_losses, check_needs, why_labels
from .schedule import Schedule, check_schedule, value_at


NO_MIXTURES = 'batch_augments mix images, to which teacher_cache has no answers: leave one of the two out'


@ALGORITHMS.register_module()
class Distiller(BaseModel):
    """Trains ``student`` on the low-resolution images with what ``teacher`` says of the high-resolution ones.

    The total is ``cls_weight`` x the student's own classification loss + the losses of ``objective``, each x its weight. A loss
    is asked as ``loss(student: NetworkOutput, teacher: NetworkOutput, batch: Batch)``. Without teacher and objective it is
    plain supervised training. So teachers and student-only baselines are trained, and rows of a table then differ in the
    objective only.

    The teacher is in eval mode whole, sees no gradient, and is in neither ``state_dict``, nor ``parameters``, nor DDP.

    Args:
        student: config of an mmpretrain classifier.
        teacher: the same, or a :class:`PlainNetwork` or :class:`EmbeddingNetwork`, or None. A module is taken with the
            weights that it has.
        teacher_checkpoint: a file, or the work directory of a finished training; read when training starts. None where the
            teacher is a module, or loads its weights itself by an ``init_cfg``.
        objective: from a name to ``dict(type=..., weight=..., **settings)``; ``weight`` is a number or a schedule over
            epochs, see :func:`value_at`. A loss whose weight is the number 0 is left out. Shown in the log as
            ``loss_<name>``, what it has in ``log_vars`` as ``<name>_<key>``. Without a teacher it may hold losses that say
            ``needs_teacher = False``, such as :class:`CenterLoss`; the teacher's output is None for them.
        cls_weight: weight of the classification loss, a number or a schedule.
        backbone_gradient: what the losses of the logits send into the backbone is multiplied by this, a number or a schedule.
            The head learns at its full rate. So other losses can lead the backbone.
        teacher_cache: ``dict(folder=...)``, the teacher's answers, computed before; no teacher is built then. The tools turn
            ``dict(views=16)`` into it, by :func:`mmcrrcd.engine.build_cache.use_teacher_cache`.
        input_size: side in pixels of the teacher's images, or height and width, for the trial pass that gives the widths and
            map sizes.
        data_preprocessor: usually a :class:`PairPreprocessor`.

    Modes of ``forward``, as in mmpretrain: 'loss' needs both; 'tensor' (logits) and 'predict' run the student only.

    Example:
        >>> network = dict(type='mmpretrain.ImageClassifier', backbone=dict(type='mmcrrcd.ResNetCIFAR', depth=8),
        ...                neck=dict(type='mmpretrain.GlobalAveragePooling'),
        ...                head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=64))
        >>> model = Distiller(network, network, cls_weight=0.1, objective=dict(kd=dict(type='mmcrrcd.KDLoss', weight=0.9)))
        >>> model(torch.zeros(4, 3, 8, 8)).shape         # logits of the student; a data preprocessor makes pairs for training
        torch.Size([4, 10])
    """

    own_parts = frozenset({'cls'})  # names of the total's parts that an objective cannot use
    can_use_cache = True            # do the teacher's embedding and logits for the images as they are suffice?
    staged = False                  # are some parameters left out in some epochs, whatever the weights say? DDP has to know

    def __init__(self, student: dict | nn.Module, teacher: dict | nn.Module | None = None,
                 teacher_checkpoint: str | None = None, objective: dict[str, dict] | None = None,
                 cls_weight: Schedule = 1.0, backbone_gradient: Schedule = 1.0, teacher_cache: dict | None = None,
                 input_size: int | tuple[int, int] = 32, data_preprocessor: dict | nn.Module | None = None,
                 init_cfg: dict | None = None):
        super().__init__(data_preprocessor, init_cfg)
        if teacher_cache:
            self.use_teacher_cache(teacher_cache)
            teacher = teacher_checkpoint = None
        self.student = MODELS.build(student) if isinstance(student, dict) else student
        if not isinstance(self.student, ImageClassifier):
            raise InputError(f"the student is an ImageClassifier of mmpretrain, got a {type(self.student).__name__}")
        check_network(self.student, 'student')
        use_channels_last(self.student)
        self._share_with_student()
        self._take_teacher(teacher)
        self.teacher_checkpoint = teacher_checkpoint
        self._teacher_is_ready = not isinstance(teacher, dict) and teacher_checkpoint is None
        check_size(input_size, 'input_size')
        self.input_size = input_size
        self.cls_weight = cls_weight
        check_schedule(cls_weight, 'the classification loss')
        self.backbone_gradient = backbone_gradient
        check_schedule(backbone_gradient, 'backbone_gradient')
        self.losses, self.weights = build_losses(objective, Distiller.own_parts, type(self).__name__)
        needing = [name for name, loss in self.losses.items() if loss.needs_teacher]
        if not self.has_teacher and needing:
            raise InputError(f'the objective ({", ".join(needing)}) needs a teacher')
        asked = set().union(*(loss.needs | loss.student_needs for loss in self.losses.values()))
        for network in (self.student, self.teacher):
            if 'pre_activations' in asked:
                ask_for_pre_activations(network)
            if 'feature_maps' in asked:
                ask_for_feature_maps(network)
        if isinstance(self.teacher, ForeignNetwork):
            self.teacher.convert_from(self.data_preprocessor)
        if self.cls_weight != 0:
            check_head(self.student.head, self.mixes)
        self._check_mixing()
        if self.has_teacher or self.losses:
            self._try_networks()

    def _take_teacher(self, teacher: dict | nn.Module | None) -> None:
        """Keeps it out of nn.Module's registration, so that it is in no state_dict, optimizer or gradient bucket."""
        with torch.random.fork_rng(devices=[]):          # losses begin the same, whether their teacher is here or in a cache
            teacher = MODELS.build(teacher) if isinstance(teacher, dict) else teacher
        if teacher is not None:
            if not isinstance(teacher, ImageClassifier) and not hasattr(teacher, 'extract'):
                teacher = PlainNetwork(teacher)
            check_network(teacher, 'teacher')
            use_channels_last(teacher.requires_grad_(False).eval())
        self.__dict__['teacher'] = teacher

    def _share_with_student(self) -> None:
        """Data preprocessor and student share Mixup and CutMix, in whichever config they stand, and the number of classes."""
        ours, own = self.data_preprocessor, self.student.data_preprocessor
        classes = getattr(self.student.head, 'num_classes', None)
        if augments := getattr(own, 'batch_augments', None):             # of the student's train_cfg
            if getattr(ours, 'batch_augments', None) is not None:
                raise InputError("both data_preprocessor.batch_augments and the student's train_cfg mix images: leave one out")
            if not isinstance(ours, PairPreprocessor):
                raise InputError("the student's train_cfg mixes images, which a data_preprocessor of type "
                                 f'{type(ours).__name__} would not see: set its batch_augments instead')
            ours.batch_augments, own.batch_augments = augments, None
        if self.mixes and classes and getattr(ours, 'num_classes', None) not in (None, classes):
            raise InputError(f'data_preprocessor.num_classes is {ours.num_classes}, and the student has {classes} classes')
        for module in (ours, *self.student.modules()):   # mmpretrain's ClassNumCheckHook asks all that have such an attribute
            if classes and getattr(module, 'num_classes', classes) is None:
                module.num_classes = classes

    @property
    def mixes(self) -> bool:
        """Are the images of a batch mixed, as by Mixup and CutMix, and its labels soft?"""
        return getattr(self.data_preprocessor, 'batch_augments', None) is not None

    def _check_mixing(self) -> None:
        """Raises InputError where images are mixed, and something needs them, or their classes, as they are."""
        if not self.mixes:
            return
        if self.cache is not None:
            raise InputError(NO_MIXTURES)
        for name, loss in self.losses.items():
            if loss.needs_labels:
                raise InputError(f'batch_augments mix images, and {name} ' + why_labels(loss))

    def use_teacher_cache(self, settings: dict) -> None:
        """Reads a teacher's answers from ``settings['folder']``. Raises InputError where they are not those of the images."""
        if not self.can_use_cache:
            raise InputError(f'{type(self).__name__} needs the teacher itself, not its answers: leave teacher_cache out')
        if set(settings) != {'folder'}:
            raise InputError(f'teacher_cache={dict(settings)}: the answers are not there yet; tools/train.py and '
                             'tools/cache_teacher.py compute them, and another tool takes teacher_cache=dict(folder=...)')
        check_reads_cache(self.data_preprocessor)
        self.data_preprocessor.use_cache(TeacherCache(settings['folder']))

    @property
    def cache(self) -> TeacherCache | None:
        """The teacher's answers, where they were computed before."""
        return getattr(self.data_preprocessor, 'cache', None)

    @property
    def has_teacher(self) -> bool:
        """True with a teacher or its stored answers."""
        return self.teacher is not None or self.cache is not None

    def _try_networks(self) -> None:
        """One pass of zeros: checks that the networks fit the images and each other, and tells the losses the widths."""
        zeros = torch.zeros(2, 3, *sides(self.input_size), dtype=torch.uint8)
        preprocessor, training = self.data_preprocessor, self.student.training
        high = low = zeros.float()
        if isinstance(preprocessor, PairPreprocessor):
            high, low = preprocessor.normalize(zeros), preprocessor(dict(inputs=zeros))['inputs'].low
        with torch.no_grad():
            teacher = (None if not self.has_teacher else self._try(self.teacher, high, 'teacher') if self.cache is None else
                       self.cache.trial_output(len(zeros)))
            student = self._try(self.student.eval(), low, 'student')
            for each in getattr(preprocessor, 'train_resolutions', None) or ():
                self._try(self.student, preprocessor.downsample(zeros, each).float(), 'student')
        self.student.train(training)
        comparing = [name for name, loss in self.losses.items() if 'logits' in loss.needs]
        if comparing and teacher is not None and teacher.logits is not None and teacher.logits.shape != student.logits.shape:
            raise InputError(f'the teacher knows {teacher.logits.shape[1]} classes, the student {student.logits.shape[1]}, and '
                             f'{comparing[0]} compares their logits: leave {comparing[0]} out (of CRRCD by alpha=0)')
        for name, loss in self.losses.items():
            check_needs(name, loss, student, teacher)
            loss.build(student, teacher)

    @staticmethod
    def _try(network: nn.Module, images: Tensor, name: str) -> NetworkOutput:
        with explained('the {} cannot take images of {} x {} pixels'.format(name, *images.shape[2:])):
            return extract(network, images)

    def init_weights(self) -> None:
        """Initializes the student, loads the teacher. mmengine calls it when training starts."""
        super().init_weights()
        if self.teacher is not None:
            self.load_teacher()

    def load_teacher(self) -> None:
        """Reads the teacher's weights and folds its batch norms; once."""
        if self._teacher_is_ready:
            return
        parameter = next(self.teacher.parameters(), None)
        if self.teacher_checkpoint is not None:
            load_network(getattr(self.teacher, 'network', self.teacher), self.teacher_checkpoint, 'teacher')
        elif parameter is not None:
            if hasattr(self.teacher, 'init_weights'):
                self.teacher.init_weights()
            print_log('the teacher has no teacher_checkpoint: unless an init_cfg of its own loads weights, they are random',
                      'current', logging.WARNING)
        if parameter is not None:
            size = (2, 3, *sides(self.input_size))
            images = torch.rand(size, generator=torch.Generator().manual_seed(0)).to(parameter.device)
            self.__dict__['teacher'] = fold(self.teacher, images)
        self._teacher_is_ready = True

    def _apply(self, fn, recurse: bool = True):
        if self.teacher is not None:
            self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, inputs: Pair | Tensor, data_samples=None, mode: str = 'tensor'):
        """The parts of the loss in mode 'loss', predictions in 'predict', logits in 'tensor'."""
        unpaired = not isinstance(inputs, Pair) and not isinstance(data_samples, Batch)
        if unpaired and data_samples and 'img_low' in data_samples[0]:
            raise InputError("the samples carry img_low, which only a data_preprocessor of type 'mmcrrcd.PairPreprocessor' "
                             'hands to the student')
        pair = inputs if isinstance(inputs, Pair) else Pair(inputs, inputs)
        if mode == 'tensor':
            return extract(self.student, pair.low).logits
        if mode == 'predict':
            return self.predict(pair, data_samples)
        if mode == 'loss':
            batch = Batch.of(data_samples)
            teacher = self.forward_teacher(pair.high) if batch.teacher is None else batch.teacher
            student = extract(self.student, pair.low, value_at(self.backbone_gradient, self.epoch))
            with torch.autocast(pair.low.device.type, enabled=False):
                return self.compute_losses(student, teacher, batch)
        raise InputError(f"mode is 'tensor', 'predict' or 'loss', got {mode!r}")

    @torch.no_grad()
    def forward_teacher(self, images: Tensor) -> NetworkOutput | None:
        """What the teacher says of the high-resolution images (N, 3, H, W)."""
        return None if self.teacher is None else extract(self.teacher, images)

    def predict(self, pair: Pair, data_samples):
        """``[dict(logits, labels)]`` for a :class:`Batch`, a list of ``DataSample`` for a list of them."""
        if isinstance(data_samples, Batch):
            return [dict(logits=extract(self.student, pair.low).logits, labels=data_samples.labels)]
        return in_its_format(self.student, lambda: self.student.predict(pair.low, data_samples))

    def compute_losses(self, student: NetworkOutput, teacher: NetworkOutput | None, batch: Batch) -> dict[str, Tensor]:
        """The weighted parts of the total, each named ``loss_*``, and what else the log should show.

        A part whose weight is zero in this epoch is not computed. What only it trains stays as it is, weight decay included.
        """
        parts = {}
        if weight := value_at(self.cls_weight, self.epoch):
            if batch.target is None:
                raise InputError('the classification loss needs labels, and the data have none: say cls_weight=0')
            parts['loss_cls'] = weight * classification_loss(self.student, student, batch.target)
        for name, loss in self.losses.items():
            parts |= self.part(name, loss, student, teacher, batch)
        if batch.labels is not None:
            parts['accuracy'] = 100 * (student.logits.argmax(1) == batch.labels).float().mean()
        return parts

    def part(self, name: str, loss: DistillLoss, student: NetworkOutput, teacher: NetworkOutput | None,
             batch: Batch) -> dict[str, Tensor]:
        """``loss_<name>``, weighted, and ``<name>_<key>`` for its ``log_vars``; nothing where its weight is zero."""
        if not (weight := value_at(self.weights[name], self.epoch)):
            return {}
        if loss.needs_labels and batch.labels is None:
            raise InputError(f'the images of this batch have no class, and {name} ' + why_labels(loss))
        loss.set_epoch(self.epoch)
        parts = {f'loss_{name}': weight * loss(student, teacher, batch)}
        for key, value in loss.log_vars.items():
            if 'loss' in key:                            # mmengine adds up whatever has 'loss' in its name
                raise InputError(f"{name}: no key of log_vars contains 'loss', got {key!r}")
            parts[f'{name}_{key}'] = value
        return parts

    @property
    def head(self) -> nn.Module:
        """The student's, where mmpretrain's hooks look for one, such as ``SwitchRecipeHook``."""
        return self.student.head

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """Depth of a parameter's layer and the number of layers, for mmpretrain's layer-wise decay of the learning rate.

        What the losses learn counts as the student's head.
        """
        try:
            return self.student.get_layer_depth(param_name.removeprefix('student.'))
        except NotImplementedError as error:
            raise InputError(f'a {type(self.student.backbone).__name__} does not tell the depth of its layers, by which '
                             'LearningRateDecayOptimWrapperConstructor sets their learning rates') from error

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """A checkpoint of only the student, as mmpretrain writes it, fills the student: ``load_from`` takes one."""
        for key, name in names_in_student(state_dict, self.student.state_dict(), prefix).items():
            state_dict[name] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def epoch(self) -> int:
        """The epoch that the Runner is in, from 0."""
        return MessageHub.get_current_instance().get_info('epoch', 0)

    def trains_in(self, epoch: int) -> bool:
        """Has any part of the total a weight in ``epoch``?"""
        return any(value_at(weight, epoch) for weight in (self.cls_weight, *self.weights.values()))
