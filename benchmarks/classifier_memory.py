"""Memory of a classifier over many identities: do its classes have to be shared out over several GPUs, or sampled?

    python -m benchmarks.classifier_memory

A training step of the classifier alone, float32, SGD with momentum, on random embeddings of 512 numbers; each setting in a
process of its own. Told of each: its weights, their gradients and momentum, the logits of a batch, and the peak of three steps,
memory over that before the classifier was made: of the whole process on a CPU (Linux only), of tensors on a GPU. Writes
``benchmarks/results/classifier_memory.json`` and prints its table.
"""
import argparse

import torch
from mmengine.device import get_device
from mmpretrain.models import LinearClsHead
from torch import nn

from mmcrrcd.models import ArcFaceMargin, CosineHead
from mmcrrcd.registry import MODELS

from .common import carry_out, mega, page, parser_of
from .memory import PeakMemory, in_own_process

WIDTH, BATCH, STEPS = 512, 128, 3
CLASSES = (10_575, 85_000)                               # CASIA-WebFace, and the size of cleaned MS-Celeb-1M
HEADS = {'softmax': dict(type=LinearClsHead), 'ArcFace': dict(type=CosineHead, margin=dict(type=ArcFaceMargin))}


def cost(name: str, classes: int, batch: int, threads: int) -> dict:
    """Bytes of one setting, in this process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    device = get_device()
    nn.Linear(WIDTH, WIDTH, device=device)(torch.ones(batch, WIDTH, device=device)).sum().backward()
    peak = PeakMemory()                                  # what the libraries take for themselves is there by now
    head = MODELS.build(HEADS[name] | dict(num_classes=classes, in_channels=WIDTH)).to(device)
    optimizer = torch.optim.SGD(head.parameters(), 0.1, momentum=0.9)
    embedding = torch.randn(batch, WIDTH, device=device, requires_grad=True)
    labels = torch.randint(classes, (batch,), device=device)
    for _ in range(STEPS):
        optimizer.zero_grad()
        logits = head((embedding,))
        head.loss_module(logits, labels).backward()
        optimizer.step()
    parameters = list(head.parameters())
    return dict(head=name, classes=classes, peak=peak.read(), weights=sum(p.nbytes for p in parameters),
                gradients=sum(p.grad.nbytes for p in parameters),
                momentum=sum(state['momentum_buffer'].nbytes for state in optimizer.state.values()), logits=logits.nbytes)


def measure(args: argparse.Namespace) -> dict:
    rows = [in_own_process(cost, name, number, args.batch, args.threads) for number in args.classes for name in HEADS]
    return dict(batch=args.batch, rows=rows)


def table(result: dict) -> str:
    """Markdown: a row a setting."""
    parts = ('weights', 'gradients', 'momentum', 'logits', 'peak')
    rows = [[f'{row["classes"]:,}', row['head'], *(mega(row[part]) for part in parts)] for row in result['rows']]
    return page(result, ['identities', 'loss', *(f'{part}, MB' for part in parts)], rows, f'Embeddings of {WIDTH} numbers, '
                f'batch {result["batch"]}, float32, SGD with momentum; an MB is a million bytes.')


def main(argv: list[str] | None = None) -> None:
    parser = parser_of(__doc__, 'classifier_memory', batch=(BATCH, 'embeddings'))
    parser.add_argument('--classes', type=int, nargs='+', default=CLASSES)
    carry_out(parser.parse_args(argv), measure, table)


if __name__ == '__main__':
    main()
