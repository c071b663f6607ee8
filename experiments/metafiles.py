"""``metafile.yml`` of each folder of configs that has results, for OpenMMLab's tools: ``mim search mmcrrcd``. From the records.

A model is a config, with the settings that its runs had beside it, and a recipe; a result is the mean over the seeds. Runs of
studies, and of ablations, are of no config.
"""
from pathlib import Path
from statistics import mean

import yaml

from . import records
from .compose import BASELINES, CONFIGS, PAIR, ROOT
from .figure3 import ABLATIONS, LEARNED, OWN_KD
from .report import MAIN, described, resolution_of
from .tables import TABLES, UPSAMPLED

HEAD = '# Written by `python -m experiments render` from the records of runs; do not edit.\n'
DATA = dict(tinyimagenet='tinyimagenet', table3='svhn', lfw='lfw', orl='lfw', table5='webface', table6='webface',
            table7='webface')                            # others: cifar100
TITLES = dict(cifar100='CIFAR-100', tinyimagenet='Tiny ImageNet', svhn='SVHN')
FACES = {'lfw': ('Face Verification', 'LFW, folds 9 and 10'), 'table5': ('Face Verification', 'LFW'),
         'orl': ('Face Retrieval', 'ORL'), 'table7': ('Face Retrieval', 'TinyFace'), 'table6': ('Face Identification', 'UCCS')}
DOWNSAMPLED = ('cifar100', 'tinyimagenet', 'table3')
OWN = PAIR[0] + '_resnet20'                              # the pair of configs/baselines/


def at(stem: str, pixels: int | None) -> tuple[str, dict] | None:
    """The config of this name at a resolution, and the settings that it takes; None where there is none."""
    setting = dict(data_preprocessor=dict(resolution=pixels)) if pixels else {}
    for name, settings in ((f'{stem}_{pixels}px', {}), (stem, setting), (f'{stem}_8px', setting)):
        if (CONFIGS / f'{name}.py').is_file():
            return name, settings
    return None


def form_of(record: dict) -> tuple[str, dict] | None:
    """How a run differs from its config as that stands: a name, and settings of the model; None where no config is meant."""
    experiment, method = record['experiment'], record['method']
    if experiment == 'figure3':
        return (method, ABLATIONS[method]) if method in MAIN.values() else None
    if method == 'crrcd_learned':
        return 'learned', LEARNED
    if method == 'kd' and experiment in DOWNSAMPLED:
        return 'kd', OWN_KD
    return None if method == 'naive' else ('', {})


def config_of(record: dict) -> tuple[str, str, dict] | None:
    """The config in configs/ that a run is of, the name of its form, and settings of the model; None where there is none."""
    experiment, method, pair = record['experiment'], record['method'], record['pair']
    data, pixels, form = DATA.get(experiment, 'cifar100'), resolution_of(record['recipe']), form_of(record)
    upsampled, pair = pair.endswith(UPSAMPLED), pair.removesuffix(UPSAMPLED)
    if form is None:
        return None
    if method == 'teacher':
        found = at(f'{"face" if experiment in FACES else "teachers"}/{pair}_{data}', None)
    elif experiment in FACES:
        end = ['16px', *([method] if method in BASELINES else []), *(['upsampled'] if upsampled else [])]
        found, upsampled = at(f'face/{pair}_{data}_{"_".join(end)}', None), False
    elif method == 'student':
        found = at(f'students/{pair}_{data}', pixels)
    elif method in BASELINES and experiment in ('table1', 'table2'):
        found = at(f'baselines/{method}', pixels) if pair == OWN else None
    else:
        found = at(f'{"low_resolution" if experiment in DOWNSAMPLED else "crrcd"}/{pair}_{data}', pixels)
    if found is None:
        return None
    (config, settings), (name, changes) = found, form
    if upsampled:
        name = '__'.join(filter(None, [name, 'upsampled']))
        settings = dict(data_preprocessor=settings.get('data_preprocessor', {}) | dict(upsample=True))
    return config, name, settings | changes


def options(settings: dict) -> str:
    """Settings of a model as --cfg-options takes them."""
    flat = {}
    for key, value in settings.items():
        flat |= {f'model.{key}.{name}': each for name, each in value.items()} if isinstance(value, dict) else {
            f'model.{key}': value}
    return ' '.join(f'{key}={value}' for key, value in flat.items())


def result(own: list[dict]) -> dict:
    """The mean of the records of one experiment."""
    experiment = own[0]['experiment']

    def percent(key: str) -> float:
        return round(mean(record['results'][key] for record in own), 2)

    if experiment in FACES:
        task, data = FACES[experiment]
        return dict(Task=task, Dataset=data, Metrics={name: percent(key) for name, key in TABLES[experiment].columns.items()})
    data = DATA.get(experiment, 'cifar100')
    return dict(Task='Image Classification', Dataset=TITLES[data], Metrics={'Top 1 Accuracy': percent('last')})


def model(name: str, config: str, settings: dict, own: list[dict]) -> dict:
    """The entry of the runs ``own``, all of one config and recipe."""
    first, taught = own[0], own[0]['method'] == 'teacher'
    training, teacher = first['training'], first['teacher'] or {}
    if taught:
        about = {'Epochs': teacher['epochs'], 'Checksum': teacher['sha256']}
    else:
        about = {'Epochs': training['epochs'], 'Batch Size': training['batch'], 'Learning Rate': training['lr'],
                 'Recipe': described(first['recipe']),
                 'Seeds': ', '.join(map(str, sorted({record['seed'] for record in own})))}      # mim wants texts in lists
        about |= {'Teacher': teacher['sha256']} if teacher else {}
    about |= {'Options': options(settings)} if settings else {}
    experiments = dict.fromkeys(record['experiment'] for record in own)
    return dict(Name=name, Config=f'configs/{config}.py', Metadata=about, Results=[
        result([record for record in own if record['experiment'] == experiment]) for experiment in experiments])


def metafiles() -> dict[Path, str]:
    """Each file that there has to be, and its text."""
    runs, folders = {}, {}
    for record in (record for experiment in TABLES for record in records.read(experiment)):
        known, teacher, recipe = config_of(record), record['teacher'] or {}, record['recipe']
        if record['method'] == 'teacher':
            recipe = f'{teacher["epochs"]}e' if teacher['epochs'] else None              # else the weights are of others
        if known and recipe:
            config, form, settings = known
            name = '__'.join(filter(None, [Path(config).name, form, recipe]))
            runs.setdefault((config, name, teacher.get('sha256', '')), (settings, []))[1].append(record)
    names = [name for _, name, _ in runs]
    for (config, name, teacher), (settings, own) in sorted(runs.items(), key=lambda run: run[0]):
        name = name if names.count(name) == 1 else f'{name}__{teacher}'
        folders.setdefault(CONFIGS / Path(config).parent / 'metafile.yml', []).append(model(name, config, settings, own))
    return {file: HEAD + yaml.safe_dump(dict(Models=models), sort_keys=False, allow_unicode=True, width=128)
            for file, models in sorted(folders.items())}


def write() -> list[Path]:
    """Writes them, and their list in ``model-index.yml``; returns what is new."""
    files, index = metafiles(), ROOT / 'model-index.yml'
    listed = yaml.safe_load(index.read_text(encoding='utf-8')) | dict(Import=[str(file.relative_to(ROOT)) for file in files])
    files[index] = yaml.safe_dump(listed, sort_keys=False, width=128)
    new = [file for file, text in files.items() if not file.is_file() or file.read_text(encoding='utf-8') != text]
    for file in new:
        file.write_text(files[file], encoding='utf-8')
    return new
