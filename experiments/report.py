"""From records to Markdown tables."""
import re
from collections.abc import Iterable
from statistics import mean, median

from mmcrrcd.environment import command, machine
from mmcrrcd.visualization.markdown import markdown_table

from . import records
from .figure3 import SWEEPS
from .records import paired_difference, spread
from .studies import RIVALS, STUDIES, Study
from .tables import BEST_EPOCH, NAMES, NOT_AS_PUBLISHED, TABLES, UNTRAINED, UPSAMPLED, Pair, Table, name_of, pair_name

Records = list[dict]
SHORTEST = 30                                            # epochs of main results; shorter runs of Figure 3 are studies
DECAY = 21 / 35                                           # share of the epochs before the first LR decay
FORMS = {'default': 'default', 'learned': 'base'}                        # of CRRCD in Figure 3, by their methods
MAIN = {'student-only': 'student_alone', 'KD (1 CE + 0.5 KD)': 'kd', 'KD (0.1 CE + 0.9 KD)': 'kd_field',
        'CRRCD, learned F, without KD': 'learned_alpha_0', NAMES['crrcd_learned']: 'learned',
        'CRRCD without KD': 'alpha_0', 'CRRCD': 'default'}                   # of Figure 3, in the table of main results
PAPER_ROW = {'student-only': 'student', 'KD (0.1 CE + 0.9 KD)': 'kd', NAMES['crrcd_learned']: 'crrcd', 'CRRCD': 'crrcd'}
OWN_KD = {'KD': '0.1 CE + 0.9 KD', 'KD, 1 CE': '1 CE + 0.9 KD'}        # of the studies
SHOWN = {arm: f'KD ({weights})' for arm, weights in OWN_KD.items()}
NOTHING = 'No runs yet.'
ARMS = 'Accuracy in percent, mean ± standard deviation of n seeds; differences seed by seed, mean ± standard error.'


def by_seed(found: Records, method: str, pair: str | None = None, key: str = 'last') -> dict[int, float]:
    """A result, or the 'minutes', of a method's records by their seeds; of all pairs without ``pair``."""
    values = {}
    for record in found:
        if record['method'] == method and pair in (None, record['pair']):
            minutes = record['seconds'] and record['seconds']['wall'] / 60
            values[record['seed']] = minutes if key == 'minutes' else record['results'].get(key)
    return {seed: value for seed, value in values.items() if value is not None}


def since_the_decay(found: Records, method: str) -> dict[int, float]:
    """Mean accuracy since the first LR decay, by the seeds."""
    own = [record for record in found if record['method'] == method]
    points = {record['seed']: [row['accuracy'] for row in record['epochs'] if 'accuracy' in row and
                               row['epoch'] > DECAY * record['training']['epochs']] for record in own}
    return {seed: mean(values) for seed, values in points.items() if values}


def groups(found: Records) -> dict[tuple[str, str, str], Records]:
    """(pair, recipe, checksum of the teacher) -> records; one without a teacher is in all groups of its pair and recipe."""
    result = {}
    for pair, recipe in dict.fromkeys((record['pair'], record['recipe']) for record in found):
        own = [record for record in found if (record['pair'], record['recipe']) == (pair, recipe)]
        for teacher in list(dict.fromkeys(record['teacher']['sha256'] for record in own if record['teacher'])) or ['none']:
            result[pair, recipe, teacher] = [
                record for record in own if not record['teacher'] or record['teacher']['sha256'] == teacher]
    return dict(sorted(result.items()))


def in_words(pair: str) -> str:
    """A pair of networks as one says it: resnet56_resnet20 is ResNet56 → ResNet20.

    Example:
        >>> in_words('wrn40_2_vgg8_upsampled')
        'WRN40-2 → VGG8, upsampled'
    """
    words = dict(iresnet='IResNet', resnet='ResNet', densenet='DenseNet', vgg='VGG', wrn='WRN', shufflenetv='ShuffleNetV',
                 mobilenetv='MobileNetV')
    networks = re.findall(rf'({"|".join(words)})(\d+(?:x\d+)?)((?<=wrn40|wrn16)_\d)?', pair)
    said = ' → '.join(words[kind] + size + depth.replace('_', '-') for kind, size, depth in networks)
    return (said or pair) + (', upsampled' if pair.endswith(UPSAMPLED) else '')


def described(recipe: str) -> str:
    """A recipe's label in words."""
    parts = recipe.split('__')
    pixels = parts.pop(0).removesuffix('px') if parts[0].endswith('px') else '32'
    schedule, *epochs = parts.pop(0).split('_in_')
    words = [f'the student sees {pixels}×{pixels} px, schedule {schedule}']
    words += [f'in {epochs[0].removesuffix("e")} epochs'] if epochs else []
    words += ['bfloat16' if part == 'amp' else f'{part.removeprefix("views")} views of the teacher' for part in parts]
    return ', '.join(words)


def origin(teacher: dict) -> str:
    """Where a teacher's weights come from, and how good it is."""
    where = (f'weights of others, {teacher["source"]}, SHA-256 {teacher["source_sha256"][:12]}' if 'source' in teacher
             else f'{teacher["epochs"]} epochs')
    accuracy = '' if teacher['accuracy'] is None else f', {teacher["accuracy"]:.2f} %'
    return f'{teacher["checkpoint"]}{accuracy} ({where}; {teacher["sha256"]})'


def section(title: str, body: str, lines: list[str], found: Records) -> str:
    """A table below its title; what has to be known beside it; how, where and by which teachers its runs were trained."""
    trained = [record['training'] for record in found if record['seconds']]
    steps = {f'batch {each["batch"]}, learning rate {each["lr"]}, {each["precision"]}' for each in trained}
    teachers = {origin(record['teacher']) for record in found if record['teacher']}
    said = [record['provenance'].get('note') for record in found]
    lines = [line for line in lines if line]
    for name, values in (('Training', steps), ('Teachers', teachers)):
        lines += [f'{name}: {"; ".join(sorted(values))}.'] if values else []
    lines += [f'{note} ({said.count(note)} of {len(found)} runs).' for note in dict.fromkeys(said) if note]
    commands = {}
    for run in (record['provenance'] for record in found):
        commands.setdefault(machine(run), set()).add(command(run))
    made = [line for where in sorted(commands) for line in ('', where, '', *(f'- {each}' for each in sorted(commands[where])))]
    return '\n'.join([f'### {title}', '', body, '', *(f'{line}  ' for line in lines), '',
                      '<details><summary>machines and commands</summary>', *made, '', '</details>', ''])


def cell(ours: dict[int, float], paper: float | None = None, marked: bool = False,
         reference: dict[int, float] | None = None) -> str:
    """What we have, below it the paper's number, and the difference to the reference method; '–' where nothing was run."""
    if not ours:
        return '–'
    lines = [spread(list(ours.values()))]
    if paper is not None:
        difference = round(mean(ours.values()) - paper, 2) + 0.0
        mark = ('▲ ' if difference > 0 else '▼ ' if difference < 0 else '') if marked else ''
        lines.append(f'paper {paper:.2f}: {mark}{difference:+.2f}')
    if reference:
        lines.append(f'paired {paired_difference(ours, reference)}')
    return '<br>'.join(lines)


def row_name(method: str, pair: Pair = ('', '')) -> str:
    upsampled = ', upsampled' if pair[1].endswith(UPSAMPLED) and method not in UNTRAINED else ''
    return name_of(method) + (' †' if method in NOT_AS_PUBLISHED else '') + upsampled


def number(table: Table, found: Records, method: str, pair: Pair, key: str, paper: float | None, marked: bool) -> str:
    """A result of a method, beside the paper's, and the difference to the table's reference method, but of a teacher."""
    ours, reference = (by_seed(found, each, pair_name(each, pair), key) for each in (method, table.reference))
    return cell(ours, paper, marked, None if method in (*UNTRAINED, table.reference) else reference)


def grid(table: Table, found: Records, recipe: str) -> str:
    """A row a method, a column a pair, of those that something was run of."""
    rows, small = [], resolution_of(recipe) is not None
    taught = {record['pair'] for record in found}
    pairs = [pair for pair in table.pairs if '_'.join(pair) in taught] or table.pairs
    for method in dict.fromkeys([*table.methods, *(record['method'] for record in found)]):
        key, paper = 'best' if method in BEST_EPOCH else 'last', {} if small else table.paper.get(method, {})
        row = [number(table, found, method, pair, key, paper.get('_'.join(pair)), '_in_' not in recipe) for pair in pairs]
        rows += [[row_name(method), *row]] if set(row) != {'–'} else []
    return markdown_table(['', *(f'{teacher} →<br>{student}' for teacher, student in pairs)], rows)


def listing(table: Table, found: Records, recipe: str) -> str:
    """A row a method and way to see, a column a number; a table for each teacher that there is something of."""
    parts, marked = [], table.marked and '_in_' not in recipe and table.resolution == resolution_of(recipe)
    first = next(iter(table.columns))
    for teacher in dict.fromkeys(teacher for teacher, _ in table.pairs):
        pairs, rows, there = [pair for pair in table.pairs if pair[0] == teacher], {}, False
        for method, pair in [(method, pair) for pair in pairs for method in table.methods]:
            own, row, paper = pair_name(method, pair), [], table.paper.get(method, {})
            there |= method != 'student' and any(record['pair'] == own for record in found)
            for title, key in table.columns.items():
                ours = by_seed(found, method, own, key)
                if key in ('macs', 'minutes'):
                    row.append(rounded(list(ours.values()), int(key == 'macs')))
                elif title == first:
                    row.append(number(table, found, method, pair, key, paper.get(title), marked))
                else:
                    row.append(cell(ours, paper.get(title), marked))
            if set(row) != {'–'}:
                rows[row_name(method, pair)] = row       # a teacher's is the same for each of its pairs
        if there:
            parts.append(f'{in_words(f"{teacher}_{pairs[0][1]}")}\n\n'
                         + markdown_table(['', *table.columns], [[name, *row] for name, row in rows.items()]))
    return '\n\n'.join(parts)


def resolution_of(recipe: str) -> int | None:
    """Pixels that the student sees, None for all."""
    return int(recipe.partition('px__')[0]) if 'px__' in recipe else None


def table_markdown(experiment: str) -> str:
    """All of a table's recipes."""
    table, everything, parts = TABLES[experiment], records.read(experiment), []
    for recipe in sorted({record['recipe'] for record in everything}):
        found = [record for record in everything if record['recipe'] == recipe]
        methods = {*table.methods, *(record['method'] for record in found)}
        best = [name_of(method) for method in BEST_EPOCH if method in table.paper]
        small = not table.columns and 'px__' in recipe
        different = [f'{name_of(method)}, {why}' for method, why in NOT_AS_PUBLISHED.items() if method in methods]
        images = {tuple(record['results']['images'].values()) for record in found if 'images' in record['results']}
        lines = [
            table.note, 'In percent, at the last epoch; mean ± standard deviation of n seeds. "paired": difference to '
            f'{name_of(table.reference)}, mean ± standard error over the seeds of both.',
            f'{", ".join(best)} at the best epoch, as in the paper.' if best else '',
            "The paper's numbers are for 32×32 px, so they are left out. Between images of different sizes AT, FT and AB are "
            'not what was published: docs/methods.md.' if small else '',
            "▲ better than the paper's number, ▼ worse, for full schedules." if table.paper and not small else '',
            f'† Not as published: {"; ".join(different)}.' if different else '',
            *(f'{train:,} training images, {test:,} test images.' for train, test in sorted(images))]
        body = (listing if table.columns else grid)(table, found, recipe)
        parts.append(section(f'{table.title}: {described(recipe)}', body, lines, found))
    return '\n'.join(parts) or NOTHING


def status_markdown() -> str:
    """What was run of each table and study, and what was not: the only place that says so."""
    rows = []
    for name, table in [*TABLES.items(), *((f'study {name}', study) for name, study in STUDIES.items())]:
        study = isinstance(table, Study)
        known = set(table.arms) if study else {(method, pair_name(method, pair)) for method, pair in table.cells()}
        there = {}
        for record in records.read(name.replace(' ', '_')):
            there.setdefault(record['method'] if study else (record['method'], record['pair']), []).append(record)
        done = known & there.keys()
        full = {cell for cell in done if study or any('_in_' not in record['recipe'] for record in there[cell])}
        seeds = max((len({record['seed'] for record in there[cell]}) for cell in done), default='–')
        data = ', '.join(f'`{path}`' for path in (() if study else table.data))
        rows.append([table.title, len(known), len(full), len(done - full), len(known - done), seeds, data or '–', f'`{name}`'])
    return markdown_table(['', 'cells', 'run', 'run, shortened', 'not run', 'seeds, at most', 'data to bring',
                           '`python -m experiments`'], rows)


def rounded(values: list[float | None], decimals: int) -> str:
    """The mean of those that are known."""
    values = [value for value in values if value is not None]
    return f'{mean(values):.{decimals}f}' if values else '–'


def scores(found: Records) -> str:
    """Of the critic for positives and negatives, means over the last epoch and the seeds; they were not kept of all runs."""
    kept = [{key.removeprefix('rcd_'): value for key, value in record['epochs'][-1].items()} for record in found]
    if not kept or not all('score_positive' in row for row in kept):
        return '–'
    return ' / '.join(f'{mean(row[key] for row in kept):.2f}' for key in ('score_positive', 'score_negative'))


def chosen_rate(own: Records) -> str:
    """The learning rate of a study's arm, and its gamma where that is not 1."""
    settings = [record['setting'] for record in own if 'lr' in record.get('setting', {})]
    return ', '.join(dict.fromkeys(f'{each["lr"]}' + (f', γ {each["gamma"]}' if each['gamma'] != 1 else '')
                                   for each in settings)) or '–'


def arms(found: Records, labels: dict[str, str], reference: str, paper: dict[str, str | float] | None = None) -> str:
    """A row for each of the ``labels`` of methods that was run, those compared with the method ``reference``, seed by seed."""
    rows = []
    compared = next((label.split(': ')[-1] for label, method in labels.items() if method == reference), reference)
    for label, method in labels.items():
        own = [record for record in found if record['method'] == method]
        if not (last := by_seed(own, method)):
            continue
        over = {of: '–' if method == reference else paired_difference(of(found, method), of(found, reference))
                for of in (by_seed, since_the_decay)}
        train = [record['epochs'][-1].get('train_accuracy') for record in own if record['epochs']]
        rows.append({
            '': label,
            'last epoch': spread(list(last.values())),
            'best epoch': spread(list(by_seed(own, method, key='best').values())),
            f'over {compared}, paired': over[by_seed],
            'the same, mean since the first LR decay': over[since_the_decay],
            'training images': rounded(train, 1),
            'scores of positives / negatives': scores(own),
            'ms a step': rounded([1000 * record['seconds']['step'] for record in own if record['seconds']['step']], 0),
            'learning rate': chosen_rate(own),
            'the paper': (paper or {}).get(label, '–')})
    head = [title for title in rows[0] if not title or any(row[title] != '–' for row in rows)] if rows else []
    return markdown_table(head, [[row[title] for title in head] for row in rows])


def evaluated(found: Records, study: Study) -> str:
    """A row for each arm that was run, a column for each result that is asked for."""
    rows = [[arm, *(cell(by_seed(found, arm, key=key), reference=None if arm == study.reference else
                         by_seed(found, study.reference, key=key)) for key in study.columns.values()), chosen_rate(own)]
            for arm in study.arms if (own := [record for record in found if record['method'] == arm])]
    return markdown_table(['', *study.columns, 'learning rate'], rows)


def read_study(name: str) -> Records:
    """All records of a study. Where its arms differ in their views, no recipe names these: they stand in one table."""
    found = records.read(f'study_{name}')
    if any('views' in changes for changes in STUDIES[name].arms.values()):
        found = [record | dict(recipe=re.sub(r'__views\w+$', '', record['recipe'])) for record in found]
    return found


def study_markdown(name: str) -> str:
    """A table for each pair, recipe and teacher: a row an arm."""
    study, parts = STUDIES[name], []
    labels = {SHOWN.get(arm, arm) if name in HEADLINE else arm: arm for arm in study.arms}
    for (pair, recipe, _), found in groups(read_study(name)).items():
        body = evaluated(found, study) if study.columns else arms(found, labels, study.reference)
        parts.append(section(f'{study.title}: {in_words(pair)}, {described(recipe)}', body, [ARMS], found))
    return '\n'.join(parts) or f'### {study.title}\n\n{NOTHING}\n'


def figure3_groups() -> dict[str, tuple[str, Records]]:
    """The name of a file -> the title and records of a pair, recipe and teacher."""
    found = {}
    for (pair, recipe, teacher), own in groups(records.read('figure3')).items():
        name = f'figure3__{pair}__{recipe}'
        found[name if name not in found else f'{name}__{teacher}'] = f'{in_words(pair)}, {described(recipe)}', own
    return found


def figure3_markdown(folder: str = '') -> str:
    """Pictures and tables; ``folder`` is where the pictures are, seen from the page."""
    table, parts = TABLES['figure3'], []
    values = [(sweep, value, method) for sweep in SWEEPS.values() for value, method in sweep.names.items()]
    labels = {f'{sweep.title}: {value}' + (f' ({FORMS[method]})' if method in FORMS else ''): method
              for sweep, value, method in values}
    paper = {label: sweep.paper.get(value, '–') for label, (sweep, value, _) in zip(labels, values)}
    for name, (title, found) in figure3_groups().items():
        there = {record['method'] for record in found}
        own = {label: method for label, (sweep, _, method) in zip(labels, values)
               if (there - FORMS.keys()) & set(sweep.names.values())}
        parts.append(section(f'{table.title}: {title}', f'![accuracy over the settings]({folder}{name}.png)\n\n'
                             + arms(found, own, 'kd', paper), [table.note, ARMS], found))
    return '\n'.join(parts) or NOTHING


def main_results() -> dict[str, Records]:
    """The longer runs of Figure 3 with default settings, by title."""
    titled = {}
    long = [record for record in records.read('figure3') if record['training']['epochs'] >= SHORTEST]
    for (pair, recipe, _), own in groups([record for record in long if record['method'] in MAIN.values()]).items():
        there = {record['method'] for record in own}
        if {'student_alone', 'kd'} <= there and FORMS.keys() & there:
            accuracy = next(record['teacher']['accuracy'] for record in own if record['teacher'])
            pixels, epochs = own[0]['resolution'], own[0]['training']['epochs']
            precision = ', bfloat16' if recipe.endswith('amp') else ''
            taught = '' if accuracy is None else f', a teacher of {accuracy:.1f} %'
            titled[f'{in_words(pair)} at {pixels}×{pixels} px, {epochs} epochs{precision}{taught}'] = own
    return titled


def results_markdown() -> str:
    """For each pair, recipe and teacher a row a method, and the conditions below it."""
    parts = []
    for title, found in main_results().items():
        pair = found[0]['pair']
        tables = [TABLES[name].paper for name in ('table1', 'table2')] if found[0]['resolution'] == 32 else []
        paper = {label: table[row][pair] for table in tables if pair in table['crrcd'] for label, row in PAPER_ROW.items()}
        parts.append(section(title, arms(found, MAIN, 'kd', paper), [ARMS], found))
    return '\n'.join(parts) or NOTHING


HEADLINE = 'few_resnet20', 'full_resnet20', 'few', 'few_densenet', 'full'                 # studies


def best(found: Records, of_these: Iterable[str]) -> str | None:
    """The arm with the highest mean of its seeds; None without any."""
    own = {arm: mean(values.values()) for arm in of_these if (values := by_seed(found, arm))}
    return max(own, key=own.get, default=None)


def final(name: str) -> Records:
    """The longest trainings of a study."""
    found = records.read(f'study_{name}')
    longest = max((record['training']['epochs'] for record in found), default=0)
    return [record for record in found if record['training']['epochs'] == longest]


def setting_in_words(found: Records) -> str:
    """Networks and images a class of a study on CIFAR-100."""
    return f'{in_words(found[0]["pair"])}, {found[0]["setting"]["images_per_class"] or 500} images a class'


def headline_markdown() -> str:
    """The shortest true answer to "does it work?": the final studies, CRRCD beside the best KD and the best of the others."""
    rows, teachers, crops, hardware = [], {}, {}, []
    for found in map(final, HEADLINE):
        kd, other = best(found, OWN_KD), best(found, [arm for arm in RIVALS if arm != 'student-only'])
        if not kd:
            continue
        values = {arm: by_seed(found, arm) for arm in ('student-only', kd, other, 'CRRCD')}
        cells = {arm: spread(list(own.values())) if own else '–' for arm, own in values.items()}
        minutes = [record['seconds']['wall'] / 60 for record in found]
        rows.append([setting_in_words(found), str(found[0]['training']['epochs']), cells['student-only'],
                     f'{cells[kd]}<br>{OWN_KD[kd]}',
                     f'{cells[other]}<br>{other}' if other else '–', cells['CRRCD'],
                     paired_difference(values['CRRCD'], values[kd]) if values['CRRCD'] else '–',
                     f'{median(minutes):.0f}'])
        teachers[in_words(found[0]['setting']['teacher'])] = max(
            record['teacher']['accuracy'] for record in found if record['teacher'])
        crops[found[0]['setting']['images_per_class'] or 500] = found[0]['setting']['views']
        hardware += [record['provenance']['hardware'] for record in found]
    if not rows:
        return NOTHING
    head = ['networks', 'epochs', 'student-only', 'best KD', 'best other', 'CRRCD', 'CRRCD over the best KD, paired', 'minutes']
    accuracies = ', '.join(f'{name} {accuracy:.1f} %' for name, accuracy in teachers.items())
    views = ', '.join(f'{views} with {images} images a class' for images, views in crops.items())
    line = ('CIFAR-100, test accuracy in percent, mean ± standard deviation of n seeds; paired: seed by seed, mean ± standard '
            'error. Students see 8×8 px, the teachers 32×32 px. These were trained on all images: '
            f'{accuracies}. They answered once, for crops of each image: {views}. Minutes of a training on one thread, median '
            f'({"; ".join(sorted(set(hardware)))}). CE: the loss of classification. "–": not run.')
    return f'{markdown_table(head, rows)}\n\n{line}'
