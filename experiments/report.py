"""From records to Markdown tables and figures."""
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure

from . import records
from .records import markdown_table, paired_difference, spread
from .studies import STUDIES


def conditions(found: list[dict]) -> list[str]:
    """Where, with what and by which command: a sentence for each different one."""
    said = []
    for each in (record['provenance'] for record in found):
        versions = ', '.join(f'{package} {version}' for package, version in each['versions'].items())
        at = f' at {each["commit"]}' if each['commit'] else ''
        said.append(f'{each["hardware"]}, {each["threads"]} thread(s); {versions}. `{each["command"]}`{at}.')
    return list(dict.fromkeys(said))


def by_seed(found: list[dict], method: str, key: str = 'last') -> dict[int, float]:
    """A result of a method's records by their seeds."""
    return {record['seed']: record['results'][key] for record in found if record['method'] == method}


def study_markdown(name: str) -> str:
    """A table for each recipe: a row an arm."""
    study, parts = STUDIES[name], [f'### {STUDIES[name].title}']
    everything = records.read(f'study_{name}')
    for recipe in dict.fromkeys(record['recipe'] for record in everything):
        found = [record for record in everything if record['recipe'] == recipe]
        reference, rows = by_seed(found, study.reference), []
        for label in study.arms:
            own = [record for record in found if record['method'] == label]
            if own:
                values = by_seed(own, label)
                rows.append([label, spread(list(values.values())), spread(list(by_seed(own, label, 'best').values())),
                             '–' if label == study.reference else paired_difference(values, reference),
                             f'{mean(each["epochs"][-1]["train_accuracy"] for each in own):.1f}',
                             f'{1000 * mean(each["seconds"]["step"] for each in own):.0f}',
                             f'{mean(each["seconds"]["wall"] for each in own) / 60:.1f}'])
        head = ['', 'last epoch', 'best epoch', f'less {study.reference}, paired', 'training images', 'ms a step', 'minutes']
        parts += [f'Recipe {recipe}.', markdown_table(head, rows),
                  'Accuracy in percent, mean ± standard deviation over n seeds; differences ± standard error, seed by seed.',
                  '\n'.join(f'- {line}' for line in conditions(found))]
    return '\n\n'.join(parts if everything else [*parts, 'No runs yet.']) + '\n'


def study_figure(name: str) -> Figure:
    """Accuracy over the epochs, a line an arm, mean over the seeds."""
    figure = Figure(figsize=(8, 5), layout='constrained')
    axes = figure.subplots()
    found = records.read(f'study_{name}')
    for key in dict.fromkeys((record['method'], record['recipe']) for record in found):
        own = [record for record in found if (record['method'], record['recipe']) == key]
        rows = {}
        for record in own:
            for row in record['epochs']:
                if 'accuracy' in row:
                    rows.setdefault(row['epoch'], []).append(row['accuracy'])
        axes.plot(list(rows), [mean(values) for values in rows.values()], marker='.', label=f'{key[0]} (n = {len(own)})')
    axes.set(xlabel='epoch', ylabel='accuracy (%)', title=STUDIES[name].title)
    axes.grid(alpha=0.3)
    if found:
        axes.legend(fontsize=8)
    return figure


def write_study(name: str) -> list[Path]:
    """Table and figure beside the records."""
    files = [records.RECORDS / f'study_{name}.{suffix}' for suffix in ('md', 'png')]
    files[0].parent.mkdir(parents=True, exist_ok=True)
    files[0].write_text(study_markdown(name), encoding='utf-8')
    study_figure(name).savefig(files[1], dpi=120)
    return files
