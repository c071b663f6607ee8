"""The embeddings of test images in the plane, a panel for each network, Figure 4 of the paper.

``python tools/plot_tsne.py --run CONFIG CHECKPOINT student-only --run CONFIG CHECKPOINT CRRCD --out tsne.png``
"""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse

import numpy as np
import torch
from _networks import add_network_arguments, load_images, load_networks
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier

from mmcrrcd.command_line import one_line_errors, picture_and_numbers
from mmcrrcd.datasets import ImageArrays
from mmcrrcd.environment import about_this_run
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.embeddings import embed
from mmcrrcd.files import write_json
from mmcrrcd.visualization.picture import save_picture
from mmcrrcd.visualization.tsne import draw_points

NEIGHBORS = 5


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw the embeddings of test images by t-SNE, with two numbers of the '
                                     'embeddings: their silhouette and the accuracy of their nearest neighbors.')
    add_network_arguments(parser, 'panel')
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='which classes (default: the first 10)')
    parser.add_argument('--per-class', type=int, default=400, help='images drawn from each class, at most (default: 400)')
    parser.add_argument('--perplexity', type=float, default=30.0)
    parser.add_argument('--seed', type=int, default=5, help='of the choice of images and of t-SNE')
    parser.add_argument('--out', default='tsne.png', metavar='FILE', help='picture; the numbers go beside it as .json')
    args = parser.parse_args(argv)
    if args.per_class < 2 or args.perplexity <= 0 or args.seed < 0:
        parser.error('--per-class is 2 or more, --perplexity above 0, --seed 0 or more')
    return args


def choose(data: ImageArrays, names: list[str] | None, per_class: int, seed: int) -> ImageArrays:
    """Some images of some classes, which become all the classes there are."""
    known = data.metainfo['classes']
    names = names or list(known[:10])
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f'there is no class {unknown[0]!r}; the classes are {", ".join(known)}')
    if len(set(names)) < 2:
        raise InputError(f'--classes names two or more, got {names[0]} alone')
    generator, images, labels = torch.Generator().manual_seed(seed), [], []
    for k, name in enumerate(names):
        of_class = (data.labels.cpu() == known.index(name)).nonzero()[:, 0]
        index = of_class[torch.randperm(len(of_class), generator=generator)[:per_class]]
        images.append(data.images[index.to(data.images.device)].cpu())
        labels += [k] * len(index)
    return ImageArrays(torch.cat(images).numpy(), np.array(labels), names, 'the chosen images')


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        picture, numbers_file = picture_and_numbers(args.out)
        networks = load_networks(args.run, args.teacher)
        data = load_images(args)
        some = choose(data, args.classes, args.per_class, args.seed)
        least = max(args.perplexity, NEIGHBORS)
        if len(some) <= least:
            raise InputError(f'more than {least:g} images are needed (--perplexity), but only {len(some)} are chosen')
        labels, classes, panels, numbers = some.labels.numpy(), some.metainfo['classes'], {}, []
        for label, network in networks.items():
            x = embed(network, some, f'embeddings ({label})')[0].cpu().numpy()
            neighbors = KNeighborsClassifier(NEIGHBORS).fit(x, labels)
            row = dict(label=label, pixels=network.path_of(some.images), width=x.shape[1],
                       silhouette=float(silhouette_score(x, labels)),
                       knn_accuracy=100 * neighbors.score(None, labels))         # of each sample the others, not itself
            title = f'{label}\nsilhouette {row["silhouette"]:.3f}, {NEIGHBORS} nearest neighbors {row["knn_accuracy"]:.1f} %'
            panels[title] = TSNE(perplexity=args.perplexity, init='pca', random_state=args.seed).fit_transform(x)
            numbers.append(row)
            print(title.replace('\n', ': '))
        result = dict(**about_this_run(), runs=args.run, teacher=args.teacher, dataset=args.dataset or 'of the first config',
                      classes=classes, images=len(some), seed=args.seed, perplexity=args.perplexity, neighbors=NEIGHBORS,
                      networks=numbers)
        write_json(numbers_file, result)
        save_picture(draw_points(panels, labels, classes, f'{len(some):,} test images'), picture)
        print(f'wrote {picture} and {numbers_file}')


if __name__ == '__main__':
    main()
