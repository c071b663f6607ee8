"""What the tools for faces share: their arguments."""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse

from mmcrrcd.datasets import VerificationPairs, bin_pairs, lfw_pairs
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.classifier import Classifier


def add_view_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--resolution', type=int, metavar='PIXELS',
                        help='downsample the faces to so many pixels, then bring them to what the network saw in its training '
                        '(default: as in its training)')
    parser.add_argument('--flip', action='store_true', help='add the embedding of the mirrored face')
    parser.add_argument('--image-size', type=int, metavar='PIXELS',
                        help="size of the training's images, to which all are brought first (default: the config's)")


def add_pair_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--pairs', metavar='FILE', help="pairs and folds in the form of LFW's pairs.txt")
    parser.add_argument('--images', metavar='DIR', help="the faces of --pairs, aligned and cropped: DIR/<name>/<name>_0001.jpg")
    parser.add_argument('--folds', type=int, nargs='+', metavar='N',
                        help='only these folds of --pairs, counted from 0, where the network has been trained on the people of '
                        'the others (default: all)')
    parser.add_argument('--bin', metavar='FILE', help='a verification set of InsightFace, instead of --pairs and --images')


def at_resolution(network: Classifier, resolution: int | None) -> Classifier:
    """The network on faces of ``resolution`` pixels, scaled to the size that it saw in its training, if that was one; None
    for as it is.

    Raises:
        InputError: that is no resolution of its images.
    """
    if resolution is None:
        return network
    if not 0 < resolution <= network.side:
        raise InputError(f'--resolution goes from 1 to the {network.side} pixels of the images, got {resolution}')
    return network.at(resolution, None if network.any_size else network.input_size)


def read_pairs(args: argparse.Namespace, side: int) -> VerificationPairs:
    """The pairs that the arguments name, their faces at ``side`` x ``side`` pixels.

    Raises:
        InputError: none or too many are named; those of the readers.
    """
    if args.bin and not (args.pairs or args.images or args.folds):
        return bin_pairs(args.bin, side)
    if args.bin or not (args.pairs and args.images):
        raise InputError('the faces are either --pairs FILE --images DIR, with --folds or without, or --bin FILE')
    return lfw_pairs(args.images, args.pairs, side, args.folds)
