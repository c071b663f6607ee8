"""Accuracy over the resolution of the test images, for several networks.

``python tools/plot_resolution.py --run CONFIG CHECKPOINT CRRCD --teacher TEACHER_CHECKPOINT --out resolution.png``
"""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse
import copy
from dataclasses import replace

from _networks import add_network_arguments, load_images, load_networks

from mmcrrcd.command_line import one_line_errors, picture_and_numbers
from mmcrrcd.config import kind, read_config
from mmcrrcd.datasets.transforms.resolution_pair import MODES
from mmcrrcd.environment import about_this_run
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.batch_norm import fit_batch_norms, training_images
from mmcrrcd.evaluation.data import test_data
from mmcrrcd.evaluation.embeddings import accuracy
from mmcrrcd.files import write_json
from mmcrrcd.visualization.picture import save_picture
from mmcrrcd.visualization.resolution import draw_resolution


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test networks on images of several resolutions. The downsampled images '
                                     'are brought to the size that each network saw in training, if it saw only one.')
    add_network_arguments(parser, 'line')
    parser.add_argument('--resolutions', type=int, nargs='+', default=[8, 12, 16, 20, 24, 28, 32], metavar='PIXELS')
    parser.add_argument('--direct', action='store_true',
                        help='do not scale the downsampled images, except for networks that were trained so (upsample=True)')
    parser.add_argument('--batch-norms', action='store_true',
                        help='one more line for each network trained at several resolutions: with batch norm statistics of the '
                        'resolution that is shown, as tools/export_student.py --resolution gives it')
    parser.add_argument('--interpolation', choices=MODES, default='bilinear', help='how all images are downsampled')
    parser.add_argument('--no-antialias', action='store_true', help='look at the nearest source pixels only')
    parser.add_argument('--out', default='resolution.png', metavar='FILE', help='picture; the numbers go beside it as .json')
    return parser.parse_args(argv)


def name_of_test_data(config: str) -> str:
    """CIFAR100, SVHN and so on."""
    data = test_data(read_config(config))
    return kind(data.get('arrays', data)).removesuffix('Arrays')


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        picture, numbers_file = picture_and_numbers(args.out)
        networks = load_networks(args.run, args.teacher)
        data = load_images(args)
        largest = min(data.images.shape[1], *(network.side for network in networks.values()))
        if not 0 < min(args.resolutions) <= max(args.resolutions) <= largest:
            raise InputError(f'--resolutions go from 1 to the {largest} pixels of the images, got {args.resolutions}')
        downsampling = dict(interpolation=args.interpolation, antialias=not args.no_antialias)
        resolutions = sorted(args.resolutions)
        configs = {label: read_config(config) for config, _, label in args.run
                   if args.batch_norms and networks[label].resolutions}
        if args.batch_norms and not configs:
            raise InputError('--batch-norms is for students trained at several resolutions, and none of these was')
        seen = {label: training_images(cfg) for label, cfg in configs.items()}
        own = {label: f'{label}, own batch norms' for label in configs}
        curves = {name: [] for label in networks for name in (label, own.get(label)) if name}
        scale_to = {label: network.side if network.downsampling.get('upsample') else
                    None if args.direct or network.any_size else network.input_size for label, network in networks.items()}
        for label, network in networks.items():
            for resolution in resolutions:
                at = network.at(resolution, scale_to[label], upsample=False, **downsampling)      # scale_to does that
                curves[label].append(accuracy(at, data, f'{label}, {resolution} pixels'))
                print(f'{label}: {at.path_of(data.images)} pixels, {curves[label][-1]:.2f} %')
                if label in own:
                    at = replace(at, network=copy.deepcopy(network.network))
                    fit_batch_norms(at.network, configs[label], seen[label], resolution)
                    curves[own[label]].append(accuracy(at, data, f'{own[label]}, {resolution} pixels'))
        antialias = ', not antialiased' if args.no_antialias and args.interpolation in ('bilinear', 'bicubic') else ''
        scaled = "scaled to each network's size in training, where that was one"
        if args.direct:
            upsampled = [label for label, network in networks.items() if network.downsampling.get('upsample')]
            scaled = 'seen as they are' + (f', but upsampled for {", ".join(upsampled)}' if upsampled else '')
        name = args.dataset or name_of_test_data(args.run[0][0])
        title = f'{len(data):,} test images ({name}), downsampled by {args.interpolation} interpolation{antialias},\n{scaled}'
        result = dict(**about_this_run(), runs=args.run, teacher=args.teacher, dataset=args.dataset or 'of the first config',
                      images=len(data), direct=args.direct, **downsampling, resolutions=resolutions, accuracy=curves,
                      input_size={label: network.input_size for label, network in networks.items()}, scaled_to=scale_to)
        write_json(numbers_file, result)
        save_picture(draw_resolution(resolutions, curves, title), picture)
        print(f'wrote {picture} and {numbers_file}')


if __name__ == '__main__':
    main()
