"""Which form of the critic trains a student best?

    python benchmarks/critic_forms.py --resolution 8 --epochs 8 --seed 5 --forms FORM ...

Every form trains a student of its own on all of CIFAR-100; the students go in step through the same images and share the
teacher's answers. Writes ``benchmarks/results/critic_forms/<name>.json`` after each epoch; ``--table`` renders them all.
"""
import argparse
import json
import platform
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope

from mmcrrcd.engine import seed_all
from mmcrrcd.models.networks import look
from mmcrrcd.registry import DATASETS, MODELS
from mmcrrcd.structures import Batch

RESULTS = Path(__file__).parent / 'results' / 'critic_forms'
FORMS = {
    'alone': dict(alpha=0, beta=0),
    'kd a0.5': dict(alpha=0.5, beta=0),
    'kd a0.9 ce0.1': dict(alpha=0.9, beta=0, cls_weight=0.1),
    'none b2': dict(beta=2, normalizer='none', num_samples=50_000),
    'batch b2': dict(beta=2, normalizer='batch'),
    'batch centred b0.1': dict(beta=0.1, normalizer='batch', centre='anchor'),
    'softmax b2': dict(beta=2),
    'softmax b1': dict(beta=1),
    'softmax b0.5': dict(beta=0.5),
    'softmax centred b0.5': dict(beta=0.5, centre='anchor'),
    'softmax centred b0.2': dict(beta=0.2, centre='anchor'),
    'softmax centred b0.1': dict(beta=0.1, centre='anchor'),
    'softmax b1 no kd': dict(alpha=0, beta=1),
    'softmax centred b0.2 no kd': dict(alpha=0, beta=0.2, centre='anchor'),
}


def build(form: str, config: Config, seed: int, teacher: torch.nn.Module | None):
    """A CRRCD with the settings of ``form``; the same student at its start for every form."""
    seed_all(seed)
    model = MODELS.build({**config, **FORMS[form], **({} if teacher is None else dict(teacher=teacher))})
    if teacher is None:
        model.init_weights()
    return model


def accuracy(model, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    right = 0
    with torch.no_grad():
        for i in range(0, len(images), 500):
            data = model.data_preprocessor(dict(inputs=images[i:i + 500], labels=labels[i:i + 500], index=labels[i:i + 500]))
            right += (model(**data, mode='tensor').argmax(1) == labels[i:i + 500]).sum().item()
    model.train()
    return 100 * right / len(images)


def run(args: argparse.Namespace) -> None:
    DefaultScope.get_instance('critic_forms', scope_name='mmpretrain')
    cfg = Config.fromfile(args.config)
    cfg.model.data_preprocessor.resolution = args.resolution
    data = DATASETS.build(cfg.train_dataloader.dataset)
    test = DATASETS.build(cfg.val_dataloader.dataset).__getitems__(list(range(10_000)))
    models, teacher = {}, None
    for form in args.forms:
        models[form] = build(form, cfg.model, args.seed, teacher)
        teacher = models[form].teacher
    preprocessor = next(iter(models.values())).data_preprocessor
    optimisers = {form: torch.optim.SGD(m.parameters(), 0.05, momentum=0.9, weight_decay=5e-4) for form, m in models.items()}
    milestones = [round(args.epochs * share) for share in (21 / 35, 28 / 35, 32 / 35)]
    result = dict(resolution=args.resolution, epochs=args.epochs, seed=args.seed, config=args.config, batch=96, lr=0.05,
                  milestones=milestones, torch=torch.__version__, processor=platform.processor() or platform.machine(),
                  threads=torch.get_num_threads(), forms={form: dict(settings=FORMS[form], epochs=[]) for form in models})
    start = time.time()
    for epoch in range(args.epochs):
        seed_all(args.seed, epoch)
        MessageHub.get_current_instance().update_info('epoch', epoch)
        for optimiser in optimisers.values():
            optimiser.param_groups[0]['lr'] = 0.05 * 0.1 ** sum(epoch >= m for m in milestones)
        shown = {form: defaultdict(list) for form in models}
        for step, index in enumerate(torch.randperm(len(data)).split(96)):
            batch = preprocessor(data.__getitems__(index), training=True)
            labels: Batch = batch['data_samples']
            with torch.autocast('cpu', torch.bfloat16):
                answer = models[args.forms[0]].teach(batch['inputs'].high)
            for form, model in models.items():
                with torch.autocast('cpu', torch.bfloat16):
                    student = look(model.student, batch['inputs'].low)
                parts = model.compare(student, answer, labels)
                optimisers[form].zero_grad()
                sum(value for name, value in parts.items() if name.startswith('loss')).backward()
                optimisers[form].step()
                if step % 50 == 49 or 'gradient_ratio' in parts:
                    for name, value in parts.items():
                        shown[form][name].append(value.item())
        for form, model in models.items():
            row = {name: mean(values) for name, values in shown[form].items()}
            result['forms'][form]['epochs'].append(dict(test=accuracy(model, test['inputs'], test['labels']), **row))
            print(f'epoch {epoch + 1:2d}  {form:28s}', '  '.join(
                f'{name} {value:.3f}' for name, value in result['forms'][form]['epochs'][-1].items()), flush=True)
        result['seconds'] = time.time() - start
        RESULTS.mkdir(parents=True, exist_ok=True)
        name = f'{args.resolution or 32}px_{args.epochs}e_seed{args.seed}{args.suffix}.json'
        (RESULTS / name).write_text(json.dumps(result, indent=1))


def table() -> str:
    """Markdown: a row a form and setting, mean and spread over seeds of the last epoch's accuracy."""
    rows = defaultdict(list)
    for file in sorted(RESULTS.glob('*.json')):
        result = json.loads(file.read_text())
        for form, record in result['forms'].items():
            if len(record['epochs']) == result['epochs']:
                rows[result['resolution'] or 32, result['epochs'], form].append(record['epochs'][-1])
    lines = ['| student sees | epochs | form | seeds | test accuracy | positive / negative score | gradient ratio |',
             '|---|---|---|---|---|---|---|']
    for (resolution, epochs, form), last in sorted(rows.items(), key=lambda r: (r[0][:2], -mean(e['test'] for e in r[1]))):
        tests = [epoch['test'] for epoch in last]
        spread = f' ± {stdev(tests):.2f}' if len(tests) > 1 else ''
        scores = '–' if 'score_positive' not in last[0] else ' / '.join(
            f'{mean(epoch[key] for epoch in last):.2f}' for key in ('score_positive', 'score_negative'))
        ratio = '–' if 'gradient_ratio' not in last[0] else f'{mean(epoch["gradient_ratio"] for epoch in last):.2f}'
        lines.append(f'| {resolution} px | {epochs} | {form} | {len(tests)} | {mean(tests):.2f}{spread} | {scores} | {ratio} |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default='configs/crrcd/resnet56_resnet20_cifar100.py')
    parser.add_argument('--resolution', type=int, help='pixels the student sees; 32 by default')
    parser.add_argument('--epochs', type=int, default=8)
    parser.add_argument('--seed', type=int, default=5)
    parser.add_argument('--forms', nargs='+', default=list(FORMS), choices=list(FORMS), metavar='FORM', help=', '.join(FORMS))
    parser.add_argument('--suffix', default='', help='added to the name of the result file')
    parser.add_argument('--table', action='store_true', help='print the table of all results')
    args = parser.parse_args()
    print(table()) if args.table else run(args)


if __name__ == '__main__':
    main()
