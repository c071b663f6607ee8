"""What a network says of sets of faces: similarities of pairs, and a gallery searched."""
import numpy as np
import torch

from mmcrrcd.datasets import VerificationPairs
from mmcrrcd.datasets.identification_sets import FaceFiles

from .classifier import Classifier
from .embeddings import embed_blocks, embed_images
from .identification import Identification, identify
from .verification import cosines


def similarities(network: Classifier, pairs: VerificationPairs, flip: bool = False, name: str = '') -> np.ndarray:
    """Cosines (P,) of the pairs as ``network`` embeds them; ``name`` is shown with the progress. For ``flip`` see
    :func:`embed_blocks`.
    """
    return cosines(embed_images(network, pairs.images, f'embeddings ({name or pairs.name})', flip), pairs.left, pairs.right)


def search(network: Classifier, gallery: FaceFiles, probes: FaceFiles, others: FaceFiles | None,
           flip: bool = False) -> Identification:
    """The probes looked for in the gallery and among ``others``, who are nobody's right face. For ``flip`` see
    :func:`embed_blocks`.
    """
    (x, ids), (x_probe, probe_ids) = (
        (torch.cat(list(embed_blocks(network, faces.blocks(network.side), flip))), torch.from_numpy(faces.ids))
        for faces in (gallery, probes))
    distractors = embed_blocks(network, others.blocks(network.side), flip) if others else ()
    return identify(x, ids, x_probe, probe_ids, distractors)
