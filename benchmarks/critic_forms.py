"""Which form of the critic trains a student best?

    python benchmarks/critic_forms.py --resolution 8 --epochs 30 --seed 5 --forms alone 'kd' 'softmax b0.5'
    python benchmarks/critic_forms.py --table          # all results so far

Every form trains a student of its own on all of CIFAR-100, in bfloat16 with the schedule of the paper (batch 96, learning rate
0.05 x 0.1 after 21/35, 28/35 and 32/35 of the epochs). The students go in step through the same images and share the teacher's
answers, which is what makes the comparison cheap; each has its own weights, critic, queue and optimiser, and does what
tools/train.py does with it. Writes ``benchmarks/results/critic_forms/<name>.json`` after each epoch.
"""
import argparse
import hashlib
import inspect
import json
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import torch
from environment import KEPT, about_this_run, conditions
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from reproduced import origin, source

from mmcrrcd.checkpoint import find_checkpoint, safe_load
from mmcrrcd.engine import seed_all
from mmcrrcd.models import CRRCD
from mmcrrcd.models.networks import look
from mmcrrcd.registry import DATASETS, MODELS

RESULTS = KEPT / 'critic_forms'
BATCH, LR = 96, 0.05
DROP = 21 / 35                                           # share of the epochs before the first drop of the rate
DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(CRRCD.__init__).parameters.items()
            if isinstance(parameter.default, (int, float, str, type(None))) and name != 'objective'}
FORMS = {
    'alone': dict(alpha=0, beta=0),
    'kd': dict(beta=0),                                  # 1 CE + alpha KD: CRRCD without its relational loss
    'kd of the field': dict(cls_weight=0.1, alpha=0.9, beta=0),          # that of configs/baselines/kd.py
    'none b2': dict(beta=2, normalizer='none', centre=None, num_samples=50_000),
    'batch b2': dict(beta=2, normalizer='batch', centre=None),
    'batch centred b0.1': dict(beta=0.1, normalizer='batch', centre='anchor'),
    'softmax b0.5': dict(beta=0.5, normalizer='softmax', centre=None),
    'softmax b1': dict(beta=1, normalizer='softmax', centre=None),
    'softmax b2': dict(beta=2, normalizer='softmax', centre=None),
    'softmax centred b0.2': dict(beta=0.2, normalizer='softmax', centre='anchor'),
    'softmax centred b0.2 to the drop': dict(beta=[(0, 0.2), (DROP, 0.2), (DROP, 0)], normalizer='softmax',
                                             centre='anchor'),
    'softmax centred b0.05': dict(beta=0.05, normalizer='softmax', centre='anchor'),
    'softmax centred b0.5': dict(beta=0.5, normalizer='softmax', centre='anchor'),
    'softmax centred b0.5 to the drop': dict(beta=[(0, 0.5), (DROP, 0.5), (DROP, 0)], normalizer='softmax',
                                             centre='anchor'),
    'softmax centred b0.5 fading to the drop': dict(beta=[(0, 0.5), (DROP, 0)], normalizer='softmax', centre='anchor'),
    'softmax b1 no kd': dict(alpha=0, beta=1, normalizer='softmax', centre=None),
    'softmax centred b0.2 no kd': dict(alpha=0, beta=0.2, normalizer='softmax', centre='anchor'),
}


class Prepared:
    """A config of ``configs/crrcd``, its teacher, and CRRCD models that share this teacher."""

    def __init__(self, config: str, resolution: int | None):
        DefaultScope.get_instance('critic_forms', scope_name='mmpretrain')
        self.cfg = Config.fromfile(config)
        self.cfg.model.data_preprocessor.resolution = resolution
        self.train_dataloader, self.val_dataloader = self.cfg.train_dataloader, self.cfg.val_dataloader
        model = MODELS.build(self.cfg.model)
        model.to(get_device()).load_teacher()
        self.teacher = model.teacher

    def settings(self, form: dict) -> dict:
        """All settings of CRRCD that a form comes to: the package's defaults, the config's, its own."""
        return DEFAULTS | {name: value for name, value in self.cfg.model.items() if name in DEFAULTS} | form

    def build(self, seed: int, **settings) -> CRRCD:
        """A model with ``settings``; its student starts from the same weights for the same ``seed``."""
        seed_all(seed)
        return MODELS.build({**self.cfg.model, **settings, 'teacher': self.teacher}).to(get_device())

    def about_the_teacher(self, images: torch.Tensor, labels: torch.Tensor) -> dict:
        """Epochs and accuracy of the teacher, which sees the images as they are, and the file it was imported from."""
        file = find_checkpoint(self.cfg.model.teacher_checkpoint)
        preprocessor = MODELS.build({**self.cfg.model.data_preprocessor, 'resolution': None}).to(get_device())
        meta = safe_load(file).get('meta', {})
        return dict(epochs=meta.get('epoch'), **source(meta), sha256=hashlib.sha256(file.read_bytes()).hexdigest()[:12],
                    accuracy=accuracy(lambda x: look(self.teacher, x).logits, preprocessor, images, labels))


def in_epochs(form: dict, epochs: int) -> dict:
    """A form whose weights change after a share of the run, in epochs."""
    return {name: [(round(share * epochs), weight) for share, weight in value] if isinstance(value, list) else value
            for name, value in form.items()}


@torch.no_grad()
def accuracy(network, preprocessor, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Percent of ``images`` (N, 3, H, W) uint8 that ``network``, from what it sees to logits, gets right."""
    right = 0
    for some, answers in zip(images.split(500), labels.split(500)):
        seen = preprocessor(dict(inputs=some))['inputs'].low
        right += (network(seen).argmax(1).cpu() == answers.cpu()).sum().item()
    return 100 * right / len(images)


def run(args: argparse.Namespace) -> None:
    file = RESULTS / f'{Path(args.config).stem}_{args.resolution or 32}px_{args.epochs}e_seed{args.seed}_{args.purpose}.json'
    if file.exists():
        sys.exit(f'{file} exists: move it away, or choose another seed')
    setting = Prepared(args.config, args.resolution)
    data = DATASETS.build(setting.train_dataloader.dataset)
    test = DATASETS.build(setting.val_dataloader.dataset).__getitems__(list(range(10_000)))
    forms = {form: in_epochs(FORMS[form], args.epochs) for form in args.forms}
    models = {form: setting.build(args.seed, **settings).train() for form, settings in forms.items()}
    first = models[args.forms[0]]
    optimisers = {form: torch.optim.SGD(m.parameters(), LR, momentum=0.9, weight_decay=5e-4) for form, m in models.items()}
    milestones = [round(args.epochs * share) for share in (DROP, 28 / 35, 32 / 35)]
    result = dict(**about_this_run(), config=args.config, seed=args.seed, purpose=args.purpose,
                  resolution=args.resolution, epochs=args.epochs, batch=BATCH, lr=LR, milestones=milestones,
                  precision='bfloat16',
                  teacher=setting.about_the_teacher(test['inputs'], test['labels']),
                  forms={form: dict(settings=setting.settings(settings), seconds=0.0, epochs=[])
                         for form, settings in forms.items()})
    RESULTS.mkdir(parents=True, exist_ok=True)
    start, teacher_seconds = time.time(), 0.0
    for epoch in range(args.epochs):
        seed_all(args.seed, epoch)
        MessageHub.get_current_instance().update_info('epoch', epoch)
        for optimiser in optimisers.values():
            optimiser.param_groups[0]['lr'] = LR * 0.1 ** sum(epoch >= m for m in milestones)
        shown = {form: defaultdict(list) for form in models}
        for step, index in enumerate(torch.randperm(len(data)).split(BATCH)):
            clock = time.time()
            batch = first.data_preprocessor(data.__getitems__(index), training=True)
            with torch.autocast(get_device(), torch.bfloat16):
                answer = first.teach(batch['inputs'].high)
            teacher_seconds += time.time() - clock
            for form, model in models.items():
                clock = time.time()
                with torch.autocast(get_device(), torch.bfloat16):
                    student = look(model.student, batch['inputs'].low)
                parts = model.compare(student, answer, batch['data_samples'])
                optimisers[form].zero_grad()
                sum(value for name, value in parts.items() if name.startswith('loss')).backward()
                optimisers[form].step()
                if step % 50 == 49 or 'gradient_ratio' in parts:
                    for name, value in parts.items():
                        shown[form][name].append(value.item())
                result['forms'][form]['seconds'] += time.time() - clock
        for form, model in models.items():
            row = {name: mean(values) for name, values in shown[form].items()}
            test_accuracy = accuracy(model.eval(), model.data_preprocessor, test['inputs'], test['labels'])
            model.train()
            result['forms'][form]['epochs'].append(dict(test=test_accuracy, **row))
            print(f'epoch {epoch + 1:2d}  {form:28s}', '  '.join(
                f'{name} {value:.3f}' for name, value in result['forms'][form]['epochs'][-1].items()), flush=True)
        left = (time.time() - start) / (epoch + 1) * (args.epochs - epoch - 1)
        print(f'{left / 60:.0f} minutes left', flush=True)
        result.update(seconds=time.time() - start, teacher_and_data_seconds=teacher_seconds)
        file.with_suffix('.part').write_text(json.dumps(result, indent=1) + '\n')
        os.replace(file.with_suffix('.part'), file)


def table() -> str:
    """Markdown: a row a form and setting; accuracy of the last epoch, mean and standard deviation over seeds."""
    rows, runs_made = defaultdict(list), []
    for file in sorted(RESULTS.glob('*.json')):
        result = json.loads(file.read_text())
        runs_made.append(f'- Seed {result["seed"]}, a teacher of {result["teacher"]["accuracy"]:.2f} %, '
                         f'{origin(result["teacher"])}: {conditions(result)}')
        for form, record in result['forms'].items():
            if len(record['epochs']) == result['epochs']:
                key = (Path(result['config']).stem, result['resolution'] or 32, result['epochs'],
                       result['teacher']['accuracy'], form)
                rows[key].append(record['epochs'])
    lines = ['| config | student sees | epochs | teacher | form | seeds | last epoch | best epoch | training images '
             '| score of positives / negatives | gradient, rcd / cls |', '|---|---|---|---|---|---|---|---|---|---|---|']
    for (config, resolution, epochs, teacher, form), runs in sorted(
            rows.items(), key=lambda item: (item[0][:4], -mean(curve[-1]['test'] for curve in item[1]))):
        last = [curve[-1] for curve in runs]
        tests, best = [row['test'] for row in last], [max(row['test'] for row in curve) for curve in runs]
        spread = f' ± {stdev(tests):.2f}' if len(tests) > 1 else ''
        scores = ratio = '–'
        if 'score_positive' in last[0]:
            scores = ' / '.join(f'{mean(row[key] for row in last):.2f}' for key in ('score_positive', 'score_negative'))
            ratio = ' → '.join(f'{mean(curve[i].get("gradient_ratio", 0) for curve in runs):.2f}' for i in (0, -1))
        lines.append(f'| {config} | {resolution} px | {epochs} | {teacher:.1f} % | {form} | {len(tests)} '
                     f'| {mean(tests):.2f}{spread} | {mean(best):.2f} | {mean(row["accuracy"] for row in last):.1f} '
                     f'| {scores} | {ratio} |')
    return '\n'.join([*lines, '', *runs_made])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default='configs/crrcd/resnet56_resnet20_cifar100.py')
    parser.add_argument('--resolution', type=int, help='pixels the student sees; all 32 by default')
    parser.add_argument('--epochs', type=int, default=8)
    parser.add_argument('--seed', type=int, default=5)
    parser.add_argument('--forms', nargs='+', default=list(FORMS), choices=list(FORMS), metavar='FORM', help=', '.join(FORMS))
    parser.add_argument('--threads', type=int, help='threads of PyTorch')
    parser.add_argument('--purpose', choices=['study', 'results'], default='study',
                        help="'results' for the tables of main results, in docs/results.md")
    parser.add_argument('--table', action='store_true', help='print the table of all results')
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(table()) if args.table else run(args)


if __name__ == '__main__':
    main()
