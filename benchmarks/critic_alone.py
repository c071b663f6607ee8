"""Does a form of the critic train at all? On frozen embeddings, where the task is easy.

    python benchmarks/critic_alone.py                       # needs the teacher of --config, trained

The teacher's embeddings of two random crops of the same images stand for e^t and e^s; relations and critic learn for 300
steps of SGD with a learning rate of 0.05. Every form sees the same batches. Writes ``benchmarks/results/critic_alone.json``
and prints its table; ``--table`` only prints it.
"""
import argparse
import json

import torch
from critic_forms import Prepared
from environment import KEPT, about_this_run, conditions
from mmengine.device import get_device
from rich.progress import track

from mmcrrcd.engine import seed_all
from mmcrrcd.models import RelationContrastLoss
from mmcrrcd.registry import DATASETS
from mmcrrcd.structures import Batch

RESULT = KEPT / 'critic_alone.json'
STEPS, SHOWN = 300, (75, 300)
FORMS = {
    'Eq. 10 as printed': dict(normalizer='none', center=None, num_samples=50_000),
    'Z of the first batch': dict(normalizer='batch', center=None),
    'Z of the first batch, centred': dict(normalizer='batch', center='anchor'),
    'softmax': dict(normalizer='softmax', center=None),
    'softmax, centred': dict(normalizer='softmax', center='anchor'),
}


def run(args: argparse.Namespace) -> dict:
    cfg = Prepared(args.config, resolution=None)
    model = cfg.build(args.seed)
    data = DATASETS.build(cfg.train_dataloader.dataset)
    seed_all(args.seed)
    losses = {form: RelationContrastLoss(relation='learned', **settings) for form, settings in FORMS.items()}
    optimisers, rows = {}, {form: {} for form in FORMS}
    for step in track(range(-6, STEPS + 1), 'critic'):        # six batches fill the queue
        batch = data.__getitems__(torch.randint(len(data), (96,)))
        views = [model.data_preprocessor(dict(batch), training=True) for _ in range(2)]
        with torch.autocast(get_device(), torch.bfloat16):
            teacher, student = (model.teach(view['inputs'].high) for view in views)
        samples: Batch = views[0]['data_samples']
        for form, loss in losses.items():
            if form not in optimisers:
                seed_all(args.seed)                           # every form starts from the same weights
                loss.prepare(student, teacher)
                loss.to(get_device())
                optimisers[form] = torch.optim.SGD(loss.parameters(), 0.05, momentum=0.9)
            value = loss(student, teacher, samples)
            if step in SHOWN:
                rows[form][step] = dict(loss=value.item(), **{name: score.item() for name, score in loss.shown.items()})
            optimisers[form].zero_grad()
            value.backward()
            optimisers[form].step()
    return dict(**about_this_run(), config=args.config, seed=args.seed, steps=STEPS, forms=rows)


def table(result: dict) -> str:
    """Markdown: a row a form."""
    lines = [f'| form | loss after {" / ".join(map(str, SHOWN))} steps | score of positives / negatives at the end |',
             '|---|---|---|']
    for form, rows in result['forms'].items():
        first, last = (rows[str(step)] for step in SHOWN)
        lines.append(f'| {form} | {first["loss"]:.2f} / {last["loss"]:.2f} '
                     f'| {last["score_positive"]:.2f} / {last["score_negative"]:.2f} |')
    return '\n'.join([*lines, '', conditions(result)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default='configs/crrcd/resnet56_resnet20_cifar100.py')
    parser.add_argument('--seed', type=int, default=5)
    parser.add_argument('--threads', type=int, help='threads of PyTorch')
    parser.add_argument('--table', action='store_true', help='print the table of the last run')
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if not args.table:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(run(args), indent=1))
    print(table(json.loads(RESULT.read_text())))


if __name__ == '__main__':
    main()
