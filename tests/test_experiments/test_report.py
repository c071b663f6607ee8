"""Tables and figures from records; the pages."""
import json

import pytest

from experiments import figures, pages, records, report
from experiments.studies import RATE, STUDIES, Setting, Study
from mmcrrcd.errors import InputError
from mmcrrcd.files import write_json
from mmcrrcd.visualization import style


def write(experiment: str, method: str, pair: str, recipe: str, seed: int, last: float, teacher: str = 'aaa',
          setting: dict | None = None, **results) -> None:
    rows = [dict(epoch=epoch, accuracy=last - 5 + epoch, train_accuracy=50.0, rcd_score_positive=0.5, rcd_score_negative=0.1)
            for epoch in (1, 5)]
    record = dict(
        experiment=experiment, method=method, pair=pair, recipe=recipe, seed=seed, resolution=32, epochs=rows, config=None,
        training=dict(epochs=30, batch=96, lr=0.05, precision='float32'), results=dict(last=last, best=last + 1) | results,
        teacher=dict(checkpoint='net', epochs=240, accuracy=70.0, sha256=teacher), seconds=dict(wall=120.0, step=0.1),
        provenance=dict(command='python -m experiments', versions=dict(torch='2'), hardware='a CPU', threads=1, commit='abc'))
    record |= dict(setting=setting) if setting else {}
    write_json(records.RECORDS / experiment / f'{method}__{pair}__{recipe}__{teacher}__s{seed}.json', record)


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(records, 'RECORDS', tmp_path)


def test_paired_differences_and_spreads():
    assert records.spread([1.0, 3.0]) == '2.00 ± 1.41 (n = 2)'
    assert records.spread([1.0]) == '1.00 (n = 1)' and records.spread([]) == '–'
    ours, reference = {5: 3.0, 6: 5.0, 7: 9.0}, {5: 2.0, 6: 2.0}
    assert records.paired_difference(ours, reference) == '+2.00 ± 1.00 (n = 2)'           # sqrt(2) / sqrt(2)
    assert records.paired_difference(ours, {8: 1.0}) == '–'


def test_the_papers_numbers_are_marked_for_full_schedules_only():
    for recipe in ('cifar_240e', 'cifar_240e_in_24e', '8px__cifar_240e'):
        for seed, (student, kd) in enumerate([(69.0, 71.0), (70.0, 71.5)], 5):
            write('table1', 'student', 'resnet20', recipe, seed, student)
            write('table1', 'kd', 'resnet56_resnet20', recipe, seed, kd)
    small, full, short = report.table_markdown('table1').split('### ')[1:]
    row = next(line for line in full.splitlines() if line.startswith('| KD |'))
    assert '71.25 ± 0.35 (n = 2)<br>paper 70.66: ▲ +0.59<br>paired +1.75 ± 0.25 (n = 2)' in row
    assert '<br>paper 70.66: +0.59' in short and '▲ +' not in short and '70.66' not in small and 'left out' in small
    assert '| DKD |' not in full and 'resnet56 →<br>resnet20 |' in full and 'vgg13' not in full and 'not run' not in full
    assert 'batch 96, learning rate 0.05, float32' in full and 'net, 70.00 % (240 epochs; aaa)' in full and 'at abc' in full


def test_without_a_record_there_is_no_table():
    assert {report.table_markdown('table5'), report.figure3_markdown(), report.results_markdown(),
            report.headline_markdown()} == {'No runs yet.'}


def test_one_table_says_what_was_run_and_what_not():
    assert '| Table V: face verification on LFW | 15 | 0 | 0 | 15 | – | `data/casia_webface`, ' in report.status_markdown()
    for recipe, method, seed in (('cifar_240e', 'kd', 5), ('cifar_240e', 'kd', 6), ('cifar_240e_in_10e', 'kd', 5),
                                 ('8px__cifar_240e_in_9e', 'at', 5)):
        write('table1', method, 'resnet56_resnet20', recipe, seed, 70)
    row = '| Table I: networks of one family | 115 | 1 | 1 | 113 | 2 | – | `table1` |'     # 7 pairs of 5 teachers, 6 students
    assert row in report.status_markdown()


def test_a_listing_has_a_table_for_each_teacher_that_there_is_something_of():
    numbers = {'bilinear, antialiased': 30.0, 'area': 20.0, 'macs': 6.25, 'images': dict(train=50_000, test=10_000)}
    write('cifar100', 'student', 'vgg8', '8px__paper_35e', 5, 30, **numbers)
    write('cifar100', 'kd', 'vgg8_vgg8', '8px__paper_35e', 5, 32, **numbers | {'bilinear, antialiased': 32.0})
    page = report.table_markdown('cifar100')
    assert 'VGG8 → VGG8\n' in page and 'ResNet56 → VGG8\n' not in page and 'not run' not in page
    assert '| student-only | 30.00 (n = 1)<br>paired -2.00 (n = 1) |' in page and '| 6.2 | 2 |' in page
    assert '50,000 training images, 10,000 test images.' in page


def test_teachers_are_not_mixed_and_figure_3_shows_what_was_run():
    ours = {'default': 63, 'tau_0.2': 62.5, 'learned': 62.8, 'learned_as_printed': 3}
    for method, last in dict(student_alone=60, kd=62, **ours).items():
        write('figure3', method, 'resnet56_resnet20', 'paper_35e', 5, last)
    write('figure3', 'kd', 'resnet56_resnet20', 'paper_35e', 5, 50, teacher='bbb')
    page = report.figure3_markdown('../')
    assert page.count('### ') == 2 and page.count('](../figure3__resnet56_resnet20__paper_35e') == 2
    first = page.split('### ')[1]
    assert '| temperature τ: 0.1 (default) | 63.00 (n = 1) | 64.00 (n = 1) | +1.00 (n = 1) |' in first
    assert '| learned F: form of the critic: softmax, centered (base) | 62.80' in first
    assert '| learned F: form of the critic: Eq. 10, β 2 | 3.00' in first and '0.50 / 0.10' in first
    assert 'number of negatives n: 64' not in first
    assert len(pages.write('figure3')) == 3
    main = report.results_markdown()
    assert '| CRRCD, learned F | 62.80' in main and '72.1 |' in main and main.count('### ') == 1
    assert '| CRRCD | 63.00 (n = 1) | 64.00 (n = 1) | +1.00 (n = 1) |' in main


def test_a_study_of_rates_is_drawn_over_the_rate_and_one_of_embeddings_shows_what_it_measures(monkeypatch):
    arms = {f'{name}{RATE}{lr}': dict(lr=lr) for name in ('KD', 'CRRCD') for lr in (0.01, 0.05)}
    study = Study('Rates', Setting(), arms, 'KD, rate 0.01', columns={'linear probe': 'probe'})
    monkeypatch.setitem(STUDIES, 'rates', study)
    for seed in (5, 6):
        for i, (label, arm) in enumerate(arms.items()):
            write('study_rates', label, 'a_b', '8px__paper_35e', seed, 1, setting=Setting(gamma=0.1)._replace(**arm)._asdict(),
                  probe=40.0 + i)
    page = report.study_markdown('rates')
    assert '| CRRCD, rate 0.05 | 43.00 ± 0.00 (n = 2)<br>paired +3.00 ± 0.00 (n = 2) | 0.05, γ 0.1 |' in page
    write('study_rates', 'CRRCD, rate 0.05, gamma 1', 'a_b', '8px__paper_35e', 5, 1, probe=50.0,
          setting=Setting(gamma=1, lr=0.05)._asdict())
    axes = figures.rates(records.read('study_rates'), 'probe').axes[0]
    assert [line.get_label() for line in axes.containers] == ['CRRCD', 'KD']
    assert axes.containers[0].lines[0].get_xydata().tolist() == [[0.01, 42], [0.05, 50]]         # the better gamma
    assert len(pages.write('study_rates')) == 2


def test_pages_are_rendered_between_their_marks(monkeypatch):
    (records.RECORDS / 'measured').mkdir()
    (records.RECORDS / 'measured' / 'probes.md').write_text('a table\n')
    text = 'a\n<!-- begin probes -->\nold\n<!-- end probes -->\nb\n<!-- begin headline -->\n<!-- end headline -->\n'
    new = text.replace('old', 'a table').replace('headline -->\n<!-- end', 'headline -->\nNo runs yet.\n<!-- end')
    assert pages.rendered(text) == new
    with pytest.raises(InputError, match='there is no table nothing'):
        pages.rendered('<!-- begin nothing -->\n<!-- end nothing -->')


def test_the_records_that_are_kept_are_of_one_format():
    folder = pages.ROOT / 'experiments' / 'records'
    files = [file for file in folder.glob('*/*.json') if file.parent.name != 'measured']
    assert len(files) > 100
    for file in files:
        record = json.loads(file.read_text())
        assert {'experiment', 'method', 'pair', 'recipe', 'seed', 'training', 'results', 'teacher', 'seconds', 'provenance',
                'epochs', 'config'} <= record.keys(), file
        assert record['experiment'] == file.parent.name and file.stem.endswith(f's{record["seed"]}')


def test_the_headline_sets_each_method_beside_the_best_kd():
    setting = Setting(views=8, images_per_class=100)._asdict()
    for method, values in {'student-only': (28, 29), 'KD': (31, 32), 'KD, 1 CE': (31, 33), 'CRRCD': (32, 35)}.items():
        for seed, last in enumerate(values, 5):
            write('study_few', method, 'resnet56_vgg8', '8px__paper_35e', seed, last, setting=setting)
    write('study_few', 'KD + SRD', 'resnet56_vgg8', '8px__paper_35e', 5, 30, setting=setting)
    page = report.headline_markdown()
    assert ('| ResNet56 → VGG8, 100 images a class | 30 | 28.50 ± 0.71 (n = 2) | 32.00 ± 1.41 (n = 2)<br>1 CE + 0.9 KD '
            '| 30.00 (n = 1)<br>KD + SRD | 33.50 ± 2.12 (n = 2) | +1.50 ± 0.50 (n = 2) | 2 |') in page
    assert 'SimKD' not in page and 'of each image: 8 with 100 images a class.' in page
    axes, = figures.headline().axes
    dots = {text.get_text(): float(each.lines[0].get_xdata()[0]) for text, each in zip(axes.get_yticklabels(), axes.containers)}
    assert dots == {'student-only (n = 2)': -3.5, 'KD (0.1 CE + 0.9 KD) (n = 2)': -0.5,
                    'KD + SRD (n = 1)': -1.0, 'CRRCD (n = 2)': 1.5}
    study = report.study_markdown('few')
    assert '| KD (1 CE + 0.9 KD) | 32.00 ± 1.41' in study and '| over KD (0.1 CE + 0.9 KD), paired |' in study


def test_pictures_show_gains_seed_by_seed():
    """A dot with its standard error, a bar for each method, and a line for each network that was measured."""
    for seed, (student, kd, ours) in enumerate([(60, 61, 62), (61, 63, 62.5)], 5):
        for method, last in dict(student_alone=student, kd=kd, default=ours).items():
            write('figure3', method, 'resnet56_resnet20', '8px__paper_35e', seed, last)
    for method, pair, last in (('student', 'resnet20', 60), ('kd', 'resnet56_resnet20', 62), ('at', 'resnet56_resnet20', 59)):
        write('table1', method, pair, '8px__paper_35e', 5, last)
    axes, = figures.gains().axes
    dots = {round(float(each.lines[0].get_xdata()[0]), 6): each.lines[0].get_color() for each in axes.containers}
    assert dots == {1.5: style.KD, 1.75: style.CRRCD}
    assert [text.get_text() for text in axes.get_yticklabels()] == ['KD (1 CE + 0.5 KD) (n = 2)', 'CRRCD (n = 2)']
    ends = axes.containers[0].lines[2][0].get_segments()[0][:, 0]
    assert ends.tolist() == pytest.approx([1.0, 2.0])                                      # 1.5 ± 0.5
    axes, = figures.bars().axes
    assert {text.get_text(): bar.get_width() for text, bar in zip(axes.get_yticklabels(), axes.patches)} == {'KD': 2, 'AT': -1}
    assert 'n = 1' in axes.get_title() and 'ResNet56 → ResNet20, 32×32 px' in axes.get_title()
    assert report.in_words('wrn40_2_wrn16_2') == 'WRN40-2 → WRN16-2' and report.in_words('a_b') == 'a_b'


def test_without_a_record_there_are_no_pictures():
    assert figures.headline() is figures.gains() is figures.bars() is None


def test_accuracy_over_resolution_is_drawn_from_what_was_measured(monkeypatch):
    monkeypatch.setattr(records, 'RECORDS', pages.ROOT / 'experiments' / 'records')
    axes, = figures.resolution().axes
    assert {line.get_color() for line in axes.lines} == {style.TEACHER, style.STUDENT_ONLY, style.CRRCD}
    assert len(axes.lines) == len(axes.texts) == 7
