"""Linear probes of networks trained here: the files of ``tools/linear_probe.py --json`` in results/linear_probe/."""
import json
from statistics import mean

from environment import KEPT, conditions
from paper_tables import label

RESULTS = KEPT / 'linear_probe'           # METHOD__PAIR.json


def table() -> str:
    """Markdown: a row a network, the best first; below it the conditions of each."""
    probes = {file.stem: json.loads(file.read_text()) for file in sorted(RESULTS.glob('*.json'))}
    if not probes:
        return 'No runs yet.'
    lines = ['| | pixels | data set | classifiers | last epoch | best epoch |', '|---|---|---|---|---|---|']
    for name, probe in sorted(probes.items(), key=lambda item: -item[1]['mean']):
        method, _, of = name.partition('__')
        images = ' + '.join(f'{number:,}' for number in probe['images'].values())
        spread = '' if probe['std'] is None else f' ± {probe["std"]:.2f}'
        lines.append(f'| {label(method)}, {of} | {probe["pixels"]} | {probe["dataset"]}, {images} images '
                     f'| {len(probe["seeds"])} | {probe["mean"]:.2f}{spread} | {mean(probe["best_epoch"]):.2f} |')
    return '\n'.join([*lines, '', *(f'- {conditions(probe)}' for probe in probes.values())])
