"""Networks of any origin as teachers: modules that end in logits, and modules that end in their embedding."""
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.models.networks import weight_and_bias
from mmcrrcd.registry import MODELS
from mmcrrcd.structures import NetworkOutput


@MODELS.register_module()
class PlainNetwork(nn.Module):
    """A plain module as teacher: its last linear layer tells embedding and logits apart.

    Args:
        network: a module, or its config, that maps images (N, 3, H, W) to logits (N, classes); it gives no feature maps.
        classifier: name of the linear layer whose input is the embedding, ``'fc'`` in torchvision's ResNets.

    Example:
        >>> teacher = PlainNetwork(torchvision.models.resnet18(), classifier='fc')
    """

    def __init__(self, network: nn.Module | dict, classifier: str = 'fc'):
        super().__init__()
        self.network = MODELS.build(network) if isinstance(network, dict) else network
        self.classifier = classifier
        self.caught = None
        # Once and for all: torch.compile does not look again whether a hook has been added.
        self.network.get_submodule(classifier).register_forward_pre_hook(self._catch)

    def _catch(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.caught = inputs[0]

    def extract(self, images: Tensor) -> NetworkOutput:
        """For :func:`extract`: the output for ``images`` (N, 3, H, W)."""
        logits = self.network(images)
        embedding, self.caught = self.caught, None
        return NetworkOutput((), embedding.float(), logits.float(), tuple(images.shape[2:]))

    def teacher_classifier(self) -> tuple[Tensor, Tensor] | None:
        """Weight and bias of the layer that tells embedding and logits apart, see :func:`linear_classifier`."""
        return weight_and_bias(self.network.get_submodule(self.classifier))


def per_channel(values: float | tuple[float, ...], name: str) -> Tensor:
    """(3, 1, 1) from a number or three."""
    values = torch.as_tensor(values, dtype=torch.float32)
    if values.shape not in ((), (3, )):
        raise InputError(f'{name} of an EmbeddingNetwork is a number or one for each of three channels, got {values.tolist()}')
    return values.expand(3).clone().view(3, 1, 1)


@MODELS.register_module()
class EmbeddingNetwork(nn.Module):
    """A network that ends in its embedding, as face networks do, as teacher: it gives neither feature maps nor logits.

    It sees what it was trained with, whatever the data preprocessor made of the images: that is turned into it by one
    multiplication and one addition a channel (:meth:`convert_from`). Images are RGB, as everywhere in this package.

    Args:
        network: a module, or its config, that maps images (N, 3, H, W) to embeddings (N, D).
        mean, std: its images are (image - mean) / std, of pixels from 0 to 255; a number, or three in the order of its
            channels. None for images as the data preprocessor normalizes them.
        bgr: its channels are blue, green, red.
        input_size: side of its images in pixels; other images are scaled to it. None where it takes any.

    Example:
        >>> teacher = EmbeddingNetwork(somebodys_network, mean=127.5, std=128, bgr=True, input_size=112)
    """

    def __init__(self, network: nn.Module | dict, mean: float | tuple[float, ...] | None = None,
                 std: float | tuple[float, ...] | None = None, bgr: bool = False, input_size: int | None = None):
        super().__init__()
        if (mean is None) != (std is None):
            raise InputError(f'mean and std of an EmbeddingNetwork go together, got {mean} and {std}')
        self.network = MODELS.build(network) if isinstance(network, dict) else network
        self.mean = None if mean is None else per_channel(mean, 'mean')
        self.std = None if std is None else per_channel(std, 'std')
        if self.std is not None and not (self.std > 0).all():
            raise InputError(f'std of an EmbeddingNetwork is positive, got {std}')
        self.bgr = bgr
        self.input_size = input_size
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

    def extract(self, images: Tensor) -> NetworkOutput:
        given = images.flip(1) if self.bgr else images
        given = given * self.scale + self.shift
        if self.input_size is not None and given.shape[2:] != (self.input_size, self.input_size):
            given = F.interpolate(given, (self.input_size, self.input_size), mode='bilinear', antialias=True)
        embedding = self.network(given)
        if not isinstance(embedding, Tensor) or embedding.dim() != 2:
            gives = tuple(embedding.shape) if isinstance(embedding, Tensor) else f'a {type(embedding).__name__}'
            raise InputError(f'an embedding is a tensor (N, D), and the network gives {gives}')
        return NetworkOutput((), embedding.float(), None, tuple(images.shape[2:]))
