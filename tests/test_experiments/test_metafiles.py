"""What OpenMMLab's tools read of this package: results of configs, as the records of the runs say."""
import json
import re

import modelindex
import yaml
from mmengine.config import Config, DictAction

from experiments import metafiles, records
from experiments.compose import ROOT
from mmcrrcd.command_line import merge_options
from mmcrrcd.engine.settings import check_settings


def models() -> dict[str, dict]:
    """By their names, as they stand in the files."""
    found = [model for file in metafiles.metafiles() for model in yaml.safe_load(file.read_text())['Models']]
    assert len({model['Name'] for model in found}) == len(found)
    return {model['Name']: model for model in found}


def test_the_metafiles_are_those_of_the_records():
    for file, text in metafiles.metafiles().items():
        assert file.is_file() and file.read_text(encoding='utf-8') == text, f'{file} is old: python -m experiments render'
    listed = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    there = {str(file.relative_to(ROOT)) for file in (ROOT / 'configs').rglob('metafile.yml')}
    assert set(listed) == there == {str(file.relative_to(ROOT)) for file in metafiles.metafiles()}


def test_an_entry_says_what_its_records_say():
    accuracies = [json.loads(file.read_text())['results']['last'] for file in (records.RECORDS / 'figure3').glob(
        'learned__resnet56_resnet20__paper_35e__amp__s*.json')]
    entry = models()['resnet56_resnet20_cifar100__learned__paper_35e__amp']
    assert entry['Config'] == 'configs/crrcd/resnet56_resnet20_cifar100.py' and len(accuracies) == 2
    assert entry['Results'] == [dict(Task='Image Classification', Dataset='CIFAR-100', Metrics={
        'Top 1 Accuracy': round(sum(accuracies) / 2, 2)})]
    assert entry['Metadata']['Seeds'] == '5, 6' and 'model.relation=learned model.cls_weight=1' in entry['Metadata']['Options']
    face = models()['resnet18_lfw_16px_upsampled__16px__face_35e_in_24e__amp']
    assert [each['Dataset'] for each in face['Results']] == ['LFW, folds 9 and 10', 'ORL'] and face['Metadata']['Epochs'] == 24


def test_configs_are_there_and_take_the_options():
    checked = set()
    for entry in models().values():
        options = entry['Metadata'].get('Options', '')
        cfg = Config.fromfile(ROOT / entry['Config'])
        merge_options(cfg, {key: DictAction._parse_iterable(value) for key, _, value in (
            option.partition('=') for option in options.split())})
        if (entry['Config'], options) not in checked:
            check_settings(cfg)
        checked.add((entry['Config'], options))
        if pixels := re.search(r'__(\d+)px__', entry['Name']):
            assert cfg.model.data_preprocessor.resolution == int(pixels[1])


def test_model_index_reads_them():
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    assert not index.check(silent=True)
    index.build_models_with_collections()
    assert {model.name for model in index.models} == set(models()) and index.collections[0].name == 'CRRCD'
