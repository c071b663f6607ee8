"""Networks of any origin as teachers: modules that end in logits, and modules that end in their embedding."""
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.datasets.transforms.resolution_pair import check_size, sides
from mmcrrcd.errors import InputError
from mmcrrcd.models.networks import weight_and_bias
from mmcrrcd.registry import MODELS
from mmcrrcd.structures import NetworkOutput


def per_channel(values: float | tuple[float, ...], name: str) -> Tensor:
    """(3, 1, 1) from a number or three."""
    values = torch.as_tensor(values, dtype=torch.float32)
    if values.shape not in ((), (3, )):
        raise InputError(f'{name} is a number or one for each of three channels, got {values.tolist()}')
    return values.expand(3).clone().view(3, 1, 1)


class ForeignNetwork(nn.Module):
    """A network of any origin, which sees the images that it was trained with, whatever the data preprocessor made of them.

    One multiplication and one addition a channel turn one into the other (:meth:`convert_from`). Images are RGB, as everywhere
    in this package.

    Args:
        network: a module, or its config. Its ``type`` may be any name that Python imports, such as ``'timm.create_model'``.
        mean, std: its images are (image - mean) / std, of pixels from 0 to 255. A number, or three in the order of its
            channels. None for images as the data preprocessor normalizes them.
        bgr: its channels are blue, green, red.
        input_size: side of its images in pixels, or height and width; other images are scaled to it. None where it takes any.
    """

    def __init__(self, network: nn.Module | dict, mean: float | tuple[float, ...] | None = None,
                 std: float | tuple[float, ...] | None = None, bgr: bool = False,
                 input_size: int | tuple[int, int] | None = None):
        super().__init__()
        kind = type(self).__name__
        if (mean is None) != (std is None):
            raise InputError(f'mean and std of {kind} go together, got {mean} and {std}')
        self.network = MODELS.build(network) if isinstance(network, dict) else network
        self.mean = None if mean is None else per_channel(mean, f'mean of {kind}')
        self.std = None if std is None else per_channel(std, f'std of {kind}')
        if self.std is not None and not (self.std > 0).all():
            raise InputError(f'std of {kind} is positive, got {std}')
        if input_size is not None:
            check_size(input_size, f'input_size of {kind}')
        self.bgr, self.input_size = bgr, input_size
        self.register_buffer('scale', torch.ones(3, 1, 1), persistent=False)
        self.register_buffer('shift', torch.zeros(3, 1, 1), persistent=False)

    def convert_from(self, preprocessor: nn.Module) -> None:
        """From now on its images are those of ``preprocessor``: normalized with its ``mean`` and ``std``, or 0 to 255
        where it has none. The distiller calls it.
        """
        if self.mean is None:
            return
        mean, std = (per_channel(getattr(preprocessor, name, default).flatten().cpu(), name)
                     for name, default in (('mean', torch.zeros(3)), ('std', torch.ones(3))))
        if self.bgr:
            mean, std = mean.flip(0), std.flip(0)
        self.scale, self.shift = (std / self.std).to(self.scale), ((mean - self.mean) / self.std).to(self.shift)

    def answer(self, images: Tensor):
        """What the network itself returns for ``images`` (N, 3, H, W) as the data preprocessor made them."""
        given = images.flip(1) if self.bgr else images
        if self.mean is not None:
            given = given * self.scale + self.shift
        if self.input_size is not None and given.shape[2:] != sides(self.input_size):
            given = F.interpolate(given, sides(self.input_size), mode='bilinear', antialias=True)
        return self.network(given)


@MODELS.register_module()
class PlainNetwork(ForeignNetwork):
    """A plain module as teacher: its last linear layer tells embedding and logits apart. It gives no feature maps.

    Args:
        network: maps images (N, 3, H, W) to logits (N, classes), or to an object with such ``logits``, as those of Hugging
            Face do.
        classifier: name of the layer whose input is the embedding. None for the last linear layer, ``'fc'`` in torchvision's
            ResNets.
        mean, std, bgr, input_size: see :class:`ForeignNetwork`.

    Example:
        >>> teacher = PlainNetwork(dict(type='torchvision.models.resnet18', weights='DEFAULT'),
        ...                        mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    """

    def __init__(self, network: nn.Module | dict, classifier: str | None = None, mean: float | tuple[float, ...] | None = None,
                 std: float | tuple[float, ...] | None = None, bgr: bool = False,
                 input_size: int | tuple[int, int] | None = None):
        super().__init__(network, mean, std, bgr, input_size)
        modules = dict(self.network.named_modules())
        linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
        if classifier is None and not linear or classifier is not None and classifier not in modules:
            what = 'no linear layer' if classifier is None else f'no layer {classifier!r}'
            raise InputError(f'the teacher ({type(self.network).__name__}) has {what}: name the one whose input is the '
                             'embedding as classifier of PlainNetwork, or take EmbeddingNetwork for one that ends in it')
        self.classifier, self.named = linear[-1] if classifier is None else classifier, classifier is not None
        self.caught = None
        # Once and for all: torch.compile does not look again whether a hook has been added.
        modules[self.classifier].register_forward_pre_hook(self._catch)

    def _catch(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.caught = inputs[0]

    def extract(self, images: Tensor) -> NetworkOutput:
        """For :func:`extract`: the output for ``images`` (N, 3, H, W)."""
        answer = self.answer(images)
        logits = answer if isinstance(answer, Tensor) else getattr(answer, 'logits', None)
        embedding, self.caught = self.caught, None
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            gives = f'a {type(answer).__name__}' if logits is None else f'{tuple(logits.shape)}'
            raise InputError(f'a PlainNetwork maps images to logits (N, classes), and its network gives {gives}')
        makes_logits = self.named or len(self.network.get_submodule(self.classifier).weight) == logits.shape[1]
        if embedding is None or embedding.dim() != 2 or not makes_logits:
            raise InputError(f'the layer {self.classifier!r} of the teacher does not make its logits of an embedding (N, D): '
                             'name the one that does as classifier of PlainNetwork')
        return NetworkOutput((), embedding.float(), logits.float(), tuple(images.shape[2:]))

    def teacher_classifier(self) -> tuple[Tensor, Tensor] | None:
        """Weight and bias of the layer that tells embedding and logits apart, see :func:`linear_classifier`."""
        return weight_and_bias(self.network.get_submodule(self.classifier))


@MODELS.register_module()
class EmbeddingNetwork(ForeignNetwork):
    """A network that ends in its embedding, as face networks do, as teacher: it gives neither feature maps nor logits.

    Args:
        network: maps images (N, 3, H, W) to embeddings (N, D).
        mean, std, bgr, input_size: see :class:`ForeignNetwork`.

    Example:
        >>> teacher = EmbeddingNetwork(somebodys_network, mean=127.5, std=128, bgr=True, input_size=112)
    """

    def extract(self, images: Tensor) -> NetworkOutput:
        """For :func:`extract`: the output for ``images`` (N, 3, H, W)."""
        embedding = self.answer(images)
        if not isinstance(embedding, Tensor) or embedding.dim() != 2:
            gives = tuple(embedding.shape) if isinstance(embedding, Tensor) else f'a {type(embedding).__name__}'
            raise InputError(f'an embedding is a tensor (N, D), and the network gives {gives}')
        return NetworkOutput((), embedding.float(), None, tuple(images.shape[2:]))
