"""A training that reads its teacher's answers is the training with the teacher."""
import json
import logging
import os
import resource
import shutil
import signal
import time
import uuid
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope

from mmcrrcd.engine import build_cache
from mmcrrcd.engine.build_cache import Source, find_or_build, use_teacher_cache
from mmcrrcd.engine.launch import build_runner
from mmcrrcd.engine.work_dir import one_training
from mmcrrcd.errors import InputError
from mmcrrcd.models.losses import DistillLoss
from mmcrrcd.models.teachers import cache as format_
from mmcrrcd.models.teachers.cache import TeacherCache
from mmcrrcd.registry import DATASETS, MODELS
from tiny import IMAGES, SIZE, TEACHER, config, crrcd, network, pipeline_loader, train, write_folder, write_teacher


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp('teacher') / 'teacher.pth')


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('images'), seed=0)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(format_, 'BLOCK', 7)             # several blocks, the last of a view smaller
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield tmp_path


def cached(tmp_path: Path, teacher: Path, views=3, epochs: int = 2, name: str = 'run', changes: dict | None = None, folder=None,
           **model) -> Config:
    """A training of CRRCD with a cache."""
    settings = dict(views=views) | (dict(folder=str(folder)) if folder else {})
    model = crrcd(teacher, **model) | dict(teacher_cache={key: value for key, value in settings.items() if value is not None})
    return config(tmp_path / name, model, epochs, **(changes or {}))


def pipeline(images: Path, workers: int = 0) -> dict:
    return dict(train_dataloader=pipeline_loader(images, training=True, workers=workers))


def trained(cfg: Config, *hooks, **options):
    use_teacher_cache(cfg)
    return train(cfg, *hooks, **options)


class Losses(Hook):
    """What each step showed."""

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append({key: value.item() for key, value in outputs.items()})


def one_line(function, *match: str) -> str:
    with pytest.raises(InputError) as error:
        function()
    text = str(error.value)
    assert '\n' not in text
    for part in match:
        assert part in text
    return text


# Exactness

@pytest.mark.parametrize('views', [3, 'all'])
@pytest.mark.parametrize('in_memory', [True, False])
def test_answers_are_those_to_the_very_images_that_the_student_sees(tmp_path, teacher, images, in_memory, views):
    if views == 'all' and not in_memory:
        pytest.skip('all views are those of crops and flips')
    cfg = cached(tmp_path, teacher, views, changes={} if in_memory else pipeline(images))
    source = Source(cfg, views, 0, with_teacher=True)
    cache = find_or_build(cfg)
    for epoch in range(4):
        source.replayed.set_epoch(epoch)
        rows = torch.randperm(IMAGES)[:9].tolist()
        if in_memory:
            data = source.replayed.__getitems__(rows)
            if views == 'all':
                data['view'] = torch.randint(50, (9,))
            view, index = data['view'], data['index']
        else:
            data = build_cache.pseudo_collate(source.replayed.__getitems__(rows))
            view, index = torch.tensor([sample.view for sample in data['data_samples']]), torch.tensor(rows)
        live = source.ask(source.preprocessor(data, training=True)['inputs'].high)
        stored = cache(view, index, torch.device('cpu'))
        torch.testing.assert_close(stored.embedding, live.embedding, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(stored.logits, live.logits, rtol=1e-3, atol=1e-3)
        assert stored.image_size == (SIZE, SIZE)


def test_with_all_views_it_is_the_training_with_the_live_teacher(tmp_path, teacher):
    live, fast = Losses(), Losses()
    hooks = dict(custom_hooks=[dict(type='mmcrrcd.PairedSeedHook'), dict(type='mmcrrcd.PlainCheckpointHook')],
                 optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.002)))      # at 0.05 rounding grows
    with_teacher = train(config(tmp_path / 'live', crrcd(teacher), 3, **hooks), live)
    without = trained(cached(tmp_path, teacher, 'all', epochs=3, changes=hooks), fast)
    assert without.model.teacher is None and len(live.seen) == len(fast.seen) == 9
    for theirs, ours in zip(live.seen, fast.seen):
        assert ours.keys() == theirs.keys()
        assert all(ours[key] == pytest.approx(theirs[key], rel=5e-3, abs=5e-3) for key in theirs)
    for ours, theirs in zip(without.model.student.parameters(), with_teacher.model.student.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=5e-3)


def test_the_teacher_is_not_there(tmp_path, teacher):
    runner = trained(cached(tmp_path, teacher))
    assert runner.model.teacher is None
    assert not any('teacher' in key.split('.')[0] for key in runner.model.state_dict())
    assert sum(p.numel() for p in runner.model.student.parameters()) == sum(
        p.numel() for p in MODELS.build(network()).parameters())


# Everything else still holds

class Killed(BaseException):
    pass


class Kill(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 7:
            raise Killed


@pytest.mark.parametrize('views, in_memory, workers', [
    (3, True, 0), ('all', True, 0), *(pytest.param(3, False, workers, marks=pytest.mark.slow) for workers in (0, 1))])
def test_a_resumed_training_is_the_one_never_stopped(tmp_path, teacher, images, views, in_memory, workers):
    changes = {} if in_memory else pipeline(images, workers)
    whole = trained(cached(tmp_path, teacher, views, epochs=4, changes=changes))
    cfg = cached(tmp_path, teacher, views, epochs=4, name='killed', changes=changes)
    use_teacher_cache(cfg)
    with pytest.raises(Killed):
        train(cfg, Kill())
    again = train(cfg, resume=True)
    torch.testing.assert_close(again.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)


def resumed(cfg: Config) -> str:
    """What a training that goes on, as tools/train.py starts it, warns of."""
    texts = []

    class Texts(logging.Handler):
        def emit(self, record):
            texts.append(record.getMessage())

    cfg.resume, cfg.experiment_name, cfg.log_level = True, uuid.uuid4().hex, 'INFO'
    with one_training(cfg.work_dir):
        runner = build_runner(cfg)
        runner.logger.addHandler(Texts('WARNING'))
        runner.train()
    return '\n'.join(text for text in texts if text.startswith('resumed with another setting'))


@pytest.mark.parametrize('views', [3, 'all'])
def test_resuming_by_the_same_command_reports_no_difference(tmp_path, teacher, views):
    """Nor does a training by the config that the first one left; answers to other images are reported."""
    trained(cached(tmp_path, teacher, views))
    assert resumed(cached(tmp_path, teacher, views)) == ''
    assert resumed(Config.fromfile(next((tmp_path / 'run').glob('*.py')))) == ''
    said = resumed(cached(tmp_path, teacher, 2))
    assert 'model.teacher_cache.folder is' in said and "the teacher's answers in work_dirs" in said
    said = resumed(config(tmp_path / 'run', crrcd(teacher), 2))
    assert 'model.teacher_cache.folder is not set here' in said and 'with other weights' not in said


def test_a_resumed_training_without_the_network_knows_its_answers(tmp_path, teacher):
    folder, gone = tmp_path / 'answers', tmp_path / 'gone.pth'
    shutil.copy(teacher, gone)
    trained(cached(tmp_path, gone, folder=folder))
    gone.unlink()
    assert resumed(cached(tmp_path, gone, folder=folder)) == ''


def test_links_in_the_place_of_unfinished_answers_are_not_followed(tmp_path, teacher):
    precious = tmp_path / 'precious'
    precious.mkdir()
    (precious / 'file').write_text('kept')
    part, lock = tmp_path / 'answers.part', tmp_path / 'answers.lock'
    part.symlink_to(precious)
    lock.symlink_to(precious / 'file')
    find_or_build(cached(tmp_path, teacher, folder=tmp_path / 'answers'))
    assert [each.name for each in precious.iterdir()] == ['file'] and (precious / 'file').read_text() == 'kept'
    assert not (tmp_path / 'answers').is_symlink() and not part.exists()
    shutil.copytree(tmp_path / 'answers', part)
    (part / 'logits.npy').unlink()
    (part / 'logits.npy').symlink_to(precious / 'file')
    shutil.rmtree(tmp_path / 'answers')
    find_or_build(cached(tmp_path, teacher, folder=tmp_path / 'answers'))
    assert (precious / 'file').read_text() == 'kept'


def test_amp_has_answers_of_its_own(tmp_path, teacher):
    amp = dict(optim_wrapper=dict(type='mmcrrcd.BF16OptimWrapper', optimizer=dict(type='SGD', lr=0.05)))
    plain, half = cached(tmp_path, teacher), cached(tmp_path, teacher, changes=amp)
    trained(half)
    use_teacher_cache(plain)
    assert half.model.teacher_cache.folder != plain.model.teacher_cache.folder
    there = plain.model.teacher_cache.folder
    one_line(lambda: find_or_build(cached(tmp_path, teacher, changes=amp, folder=there)), 'precision')


def test_several_resolutions_in_training(tmp_path, teacher):
    cfg = cached(tmp_path, teacher)
    cfg.model.data_preprocessor.train_resolutions = [8, 12, 16]
    assert np.isfinite(trained(cfg, losses := Losses()).message_hub.get_scalar('train/loss').current())
    assert losses.seen


def test_resolutions_share_the_answers(tmp_path, teacher):
    folders = set()
    for resolution in (8, 12, None):
        cfg = cached(tmp_path, teacher, resolution=resolution)
        use_teacher_cache(cfg)
        folders.add(cfg.model.teacher_cache.folder)
    assert len(folders) == 1


def test_without_labels(tmp_path, teacher, images):
    for folder in images.iterdir():                      # the same images, of no class
        for file in folder.iterdir():
            (tmp_path / 'flat').mkdir(exist_ok=True)
            shutil.copy(file, tmp_path / 'flat' / f'{folder.name}_{file.name}')
    loader = pipeline_loader(tmp_path / 'flat', training=True)
    loader['dataset']['with_label'] = False
    cfg = cached(tmp_path, teacher, changes=dict(train_dataloader=loader), cls_weight=0, alpha=0, sampling='unsupervised')
    losses = Losses()
    trained(cfg, losses)
    assert losses.seen and all('accuracy' not in seen and seen['loss_rcd'] > 0 for seen in losses.seen[-3:])


def test_a_teacher_that_ends_in_its_embedding(tmp_path):
    @MODELS.register_module(force=True)
    class TinyEmbedder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.layer = torch.nn.Linear(3 * SIZE**2, 10)

        def forward(self, x):
            return self.layer(x.flatten(1) / 100)

    cfg = cached(tmp_path, None, alpha=0)
    cfg.model.teacher = dict(type='mmcrrcd.EmbeddingNetwork', network=dict(type='mmcrrcd.TinyEmbedder'), mean=127.5, std=128)
    cfg.model.teacher_checkpoint = None
    assert trained(cfg).model.cache.shape['logits'] is None
    cfg = cached(tmp_path, None)
    cfg.model.teacher = dict(type='mmcrrcd.EmbeddingNetwork', network=dict(type='mmcrrcd.TinyEmbedder'))
    cfg.model.teacher_checkpoint = None
    one_line(lambda: trained(cfg), 'kd', 'logits')


def test_losses_that_need_more_are_named(tmp_path, teacher):
    hint = dict(hint=dict(type='mmcrrcd.FitNetLoss'))
    one_line(lambda: trained(cached(tmp_path, teacher, objective=hint)), 'hint', 'feature maps')


@pytest.mark.parametrize('method', ['SSKD', 'EKD'])
def test_methods_that_need_the_teacher_itself_are_named(tmp_path, method):
    cfg = config(tmp_path / 'run', dict(type=f'mmcrrcd.{method}', student=network(), teacher=TEACHER, input_size=SIZE,
                                        teacher_cache=dict(folder='somewhere')))
    one_line(lambda: MODELS.build(cfg.model), method, 'teacher_cache')


def test_the_page_lists_what_a_cache_can_serve():
    page = (Path(__file__).parents[2] / 'docs' / 'methods.md').read_text()
    rows = [line.split('|')[1:4] for line in page.split('| from a cache |')[1].split('\n\n')[0].splitlines()[2:]]
    told = {name.strip(): yes.strip() == 'yes' for names, _, yes in rows for name in names.split(',')}
    kinds = {name.removesuffix('Loss'): kind for name, kind in MODELS.module_dict.items()
             if isinstance(kind, type) and issubclass(kind, DistillLoss) and kind.needs_teacher
             and kind.__module__.startswith('mmcrrcd.')}                 # not one that another test has made
    kinds.pop('RelationContrast')
    assert kinds.keys() <= told.keys()
    for name, kind in kinds.items():
        assert told[name] == (kind.needs <= {'embedding', 'logits'}), name


# A folder of answers is a teacher

def test_without_the_network(tmp_path, teacher, caplog):
    with_network = trained(cached(tmp_path, teacher, folder=tmp_path / 'answers'))
    shutil.move(tmp_path / 'answers', tmp_path / 'elsewhere')
    for missing in (dict(teacher=None, teacher_checkpoint=None), dict(teacher_checkpoint=str(tmp_path / 'not_here.pth'))):
        cfg = cached(tmp_path, teacher, views=None, folder=tmp_path / 'elsewhere')
        cfg.model.update(missing)
        without = trained(cfg)
        torch.testing.assert_close(without.model.state_dict(), with_network.model.state_dict(), rtol=0, atol=0)


def test_without_network_and_folder(tmp_path):
    one_line(lambda: use_teacher_cache(cached(tmp_path, tmp_path / 'not_here.pth')), 'weights are missing')
    one_line(lambda: use_teacher_cache(cached(tmp_path, tmp_path / 'not_here.pth', folder=tmp_path / 'nothing')), 'nothing')


def test_a_model_alone_wants_the_folder(teacher):
    one_line(lambda: MODELS.build(crrcd(teacher) | dict(teacher_cache=dict(views=3))), 'tools/cache_teacher.py')


def test_the_classifier_is_handed_over_too(tmp_path, teacher):
    model = crrcd(teacher) | dict(type='mmcrrcd.SimKD', teacher_cache=dict(views=3))
    for key in ('num_negatives', 'dim', 'num_anchors', 'beta', 'relation'):
        model.pop(key, None)
    live = train(config(tmp_path / 'live', {key: value for key, value in model.items() if key != 'teacher_cache'}, 1)).model
    fast = trained(config(tmp_path / 'fast', model, 1)).model
    torch.testing.assert_close(fast.classifier_weight, live.classifier_weight)
    torch.testing.assert_close(fast.classifier_bias, live.classifier_bias)
    view, index = torch.zeros(IMAGES, dtype=torch.int64), torch.arange(IMAGES)
    stored = fast.cache(view, index, torch.device('cpu'))
    made = torch.nn.functional.linear(stored.embedding, fast.classifier_weight, fast.classifier_bias)
    torch.testing.assert_close(made, stored.logits, rtol=2e-3, atol=2e-3)


# Trust

@pytest.fixture
def answers(tmp_path, teacher) -> Path:
    find_or_build(cached(tmp_path, teacher, folder=tmp_path / 'answers'))
    return tmp_path / 'answers'


def other_teacher(cfg, tmp_path):
    torch.manual_seed(8)
    torch.save(MODELS.build(TEACHER).state_dict(), tmp_path / 'other.pth')
    cfg.model.teacher_checkpoint = str(tmp_path / 'other.pth')


@pytest.mark.parametrize('change, said', [
    (other_teacher, 'another teacher'),
    (lambda cfg, _: cfg.model.data_preprocessor.update(mean=[1., 2., 3.]), 'normalized'),
    (lambda cfg, _: cfg.model.data_preprocessor.update(to_rgb=True), 'normalized'),
    (lambda cfg, _: cfg.model.data_preprocessor.update(padding=1), 'augmentation'),
    (lambda cfg, _: cfg.model.data_preprocessor.update(flip=0.4), 'augmentation'),
    (lambda cfg, _: cfg.train_dataloader.dataset.update(seed=9), 'other training data'),
    (lambda cfg, _: cfg.model.teacher_cache.update(views=2), 'other views'),
    (lambda cfg, _: cfg.model.teacher_cache.update(seed=2), 'seed'),
])
def test_answers_of_something_else_are_refused(tmp_path, teacher, answers, change, said):
    cfg = cached(tmp_path, teacher, folder=answers)
    find_or_build(cfg)                                   # as they are they serve
    change(cfg, tmp_path)
    one_line(lambda: find_or_build(cfg), said, 'answers')


def test_a_pipeline_that_was_changed_is_refused(tmp_path, teacher, images):
    cfg = cached(tmp_path, teacher, folder=tmp_path / 'answers', changes=pipeline(images))
    find_or_build(cfg)
    other = cached(tmp_path, teacher, folder=tmp_path / 'answers', changes=pipeline(images))
    # The student's image is none of the teacher's business.
    other.train_dataloader.dataset.pipeline[3].resolution = other.model.data_preprocessor.resolution = 12
    find_or_build(other)
    other.train_dataloader.dataset.pipeline.insert(1, dict(type='RandomFlip', prob=0.3))
    one_line(lambda: find_or_build(other), 'augmentation')


def edit(file: Path, change) -> None:
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def overwrite(file: Path, place: int, content: bytes) -> None:
    with open(file, 'r+b') as opened:
        opened.seek(place)
        opened.write(content)


@pytest.mark.parametrize('damage, said', [
    (lambda f: os.truncate(f / 'logits.npy', 200), 'logits.npy'),
    (lambda f: os.truncate(f / 'embedding.npy', (f / 'embedding.npy').stat().st_size - 2), 'embedding.npy'),
    (lambda f: (f / 'logits.npy').unlink(), 'logits.npy'),
    (lambda f: shutil.copy(f / 'logits.npy', f / 'embedding.npy'), 'embedding.npy'),
    (lambda f: np.save(f / 'logits.npy', np.array([{}], object), allow_pickle=True), 'logits.npy'),
    (lambda f: overwrite(f / 'logits.npy', 300, bytes(8)), 'damaged'),
    (lambda f: edit(f / 'manifest.json', lambda m: m['about'].update(views=2)), 'changed by hand'),
    (lambda f: edit(f / 'manifest.json', lambda m: m['shape'].update(images=20)), 'changed by hand'),
    (lambda f: edit(f / 'manifest.json', lambda m: m['blocks'].pop()), 'changed by hand'),
    (lambda f: edit(f / 'manifest.json', lambda m: m.update(format=99)), 'format 99'),
    (lambda f: edit(f / 'manifest.json', lambda m: m.pop('seal')), 'damaged'),
    (lambda f: (f / 'manifest.json').write_text('[1, 2'), 'damaged'),
    (lambda f: (f / 'manifest.json').write_bytes(b'\xff\xfe\x00'), 'damaged'),
    (lambda f: (f / 'manifest.json').write_text('[]'), 'damaged'),
])
def test_damaged_folders_are_refused(tmp_path, teacher, answers, damage, said):
    damage(answers)
    text = one_line(lambda: find_or_build(cached(tmp_path, teacher, folder=answers)), said, str(answers))
    assert 'delete the folder' in text


def test_answers_that_a_network_does_not_give_are_found(tmp_path, teacher, monkeypatch):
    """Where all that is written down agrees, but the numbers are others: another version of an image library, say."""
    cfg = cached(tmp_path, teacher, folder=tmp_path / 'answers')
    find_or_build(cfg)
    ask = Source.ask
    monkeypatch.setattr(Source, 'ask', lambda self, images: ask(self, images.flip(3)))
    one_line(lambda: find_or_build(cfg), 'computed again')


def test_answers_too_large_for_float16_are_refused(tmp_path, teacher, monkeypatch):
    ask = Source.ask

    def large(self, images):
        output = ask(self, images)
        return output._replace(logits=output.logits * 1e6)

    monkeypatch.setattr(Source, 'ask', large)
    one_line(lambda: find_or_build(cached(tmp_path, teacher)), 'logits', 'float16')


def test_no_file_is_unpickled(tmp_path, teacher, answers, monkeypatch):
    import pickle
    monkeypatch.setattr(pickle, 'load', lambda *_, **__: pytest.fail('unpickled'))
    TeacherCache(answers)


@pytest.mark.parametrize('settings, said', [(dict(views=0), 'views'), (dict(views='some'), 'views'), (dict(view=3), 'view'),
                                            (dict(views=3, seed=-1), 'seed')])
def test_wrong_settings_are_one_line(tmp_path, teacher, settings, said):
    cfg = cached(tmp_path, teacher)
    cfg.model.teacher_cache = settings
    one_line(lambda: use_teacher_cache(cfg), said)


def test_all_views_of_a_pipeline_are_refused(tmp_path, teacher, images):
    one_line(lambda: use_teacher_cache(cached(tmp_path, teacher, 'all', changes=pipeline(images))), "views='all'")


def test_a_preprocessor_of_mmpretrain_is_refused(tmp_path, teacher):
    cfg = cached(tmp_path, teacher)
    cfg.model.data_preprocessor = dict(type='ClsDataPreprocessor')
    one_line(lambda: use_teacher_cache(cfg), 'PairPreprocessor')


@pytest.mark.parametrize('in_memory', [True, False])
def test_a_loader_that_does_not_replay_is_refused(tmp_path, teacher, images, in_memory):
    cfg = cached(tmp_path, teacher, changes={} if in_memory else pipeline(images))
    plain = cfg.train_dataloader.dataset
    use_teacher_cache(cfg)
    cfg.train_dataloader.dataset = plain
    one_line(lambda: train(cfg), 'ReplayedViews')
    cfg.custom_hooks.append(dict(type='mmcrrcd.CheckInputHook'))
    one_line(lambda: train(cfg), 'ReplayedViews')
    cfg.train_dataloader.dataset = dict(type='mmcrrcd.ReplayedViews', dataset=plain, views=3, seed=1)
    one_line(lambda: train(cfg), 'seed')


# Building: killed, twice at once, without room

def child(function) -> BaseProcess:
    process = get_context('fork').Process(target=function)
    process.start()
    return process


def contents(folder: Path) -> dict:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def slowly(cfg, seconds: float):
    """Builds with a pause after each block."""
    write = format_.CacheWriter.write

    def slow_write(self, *args):
        write(self, *args)
        time.sleep(seconds)

    format_.CacheWriter.write = slow_write
    find_or_build(cfg)


def test_killed_at_any_moment_it_goes_on_and_ends_the_same(tmp_path, teacher):
    find_or_build(cached(tmp_path, teacher, folder=tmp_path / 'whole'))
    folder = tmp_path / 'killed'
    cfg = cached(tmp_path, teacher, folder=folder)
    log, lengths = tmp_path / 'killed.part' / 'blocks.txt', []
    for moment in range(10):
        process = child(lambda: slowly(cfg, 0.05))
        deadline = time.time() + 60
        while process.is_alive() and time.time() < deadline:
            if log.exists() and len(log.read_text().splitlines()) > moment:
                break
            time.sleep(0.002 * moment)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if folder.exists():
            break
        lengths.append(len(log.read_text().splitlines()))
        if moment == 4:                                  # what a machine that lost its power may leave
            log.write_text(log.read_text()[:-3])
        if moment == 6:
            overwrite(tmp_path / 'killed.part' / 'logits.npy', 300, b'\xff' * 8)
    assert len(lengths) >= 9 and lengths[-1] > lengths[0]
    find_or_build(cfg)
    assert contents(folder) == contents(tmp_path / 'whole') and not (tmp_path / 'killed.part').exists()


def test_a_part_of_something_else_is_begun_anew(tmp_path, teacher):
    folder = tmp_path / 'answers'
    process = child(lambda: slowly(cached(tmp_path, teacher, views=2, folder=folder), 5))
    while not (tmp_path / 'answers.part' / 'blocks.txt').exists() or not (tmp_path / 'answers.part' / 'blocks.txt').read_text():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    find_or_build(cached(tmp_path, teacher, folder=folder))
    find_or_build(cached(tmp_path, teacher, folder=tmp_path / 'whole'))
    assert contents(folder) == contents(tmp_path / 'whole')


def test_two_at_once_build_one(tmp_path, teacher):
    cfg, counted = cached(tmp_path, teacher, folder=tmp_path / 'answers'), tmp_path / 'counted'

    def build():
        write = format_.CacheWriter.write

        def counting(self, block, output):
            with open(counted, 'a') as file:
                file.write(f'{block}\n')
            time.sleep(0.02)
            write(self, block, output)

        format_.CacheWriter.write = counting
        find_or_build(cfg)

    processes = [child(build), child(build)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    blocks = [int(line) for line in counted.read_text().split()]
    assert sorted(blocks) == list(range(3 * -(-IMAGES // 7)))


def step_of_a_process(rank: int, world: int, folder: Path, teacher: Path) -> None:
    """Builds the cache together with the others, takes a step with a share of a batch, and leaves what it was left with."""
    os.chdir(folder)
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=world)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        cfg = cached(folder, teacher, folder=folder / f'answers_{world}')
        use_teacher_cache(cfg)
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        model.train().student.eval()
        forward = MMDistributedDataParallel(model, broadcast_buffers=False) if world > 1 else model
        share = list(range(rank * 8 // world, (rank + 1) * 8 // world))
        data = model.data_preprocessor(DATASETS.build(cfg.train_dataloader.dataset).__getitems__(share), training=True)
        losses = forward(data['inputs'], data['data_samples'], mode='loss')
        sum(value for key, value in losses.items() if key.startswith('loss')).backward()
    torch.save({key: value.grad for key, value in model.named_parameters()}, folder / f'{world}_{rank}.pt')
    if world > 1:
        torch.distributed.destroy_process_group()


def test_two_processes_build_and_train_as_one(tmp_path, teacher):
    torch.multiprocessing.start_processes(step_of_a_process, (2, tmp_path, teacher), nprocs=2, start_method='fork')
    child(lambda: step_of_a_process(0, 1, tmp_path, teacher)).join(120)
    assert contents(tmp_path / 'answers_2') == contents(tmp_path / 'answers_1')
    of_one, *of_two = (torch.load(tmp_path / f'{name}.pt') for name in ('1_0', '2_0', '2_1'))
    for gradients in of_two:
        torch.testing.assert_close(gradients, of_one, rtol=1e-4, atol=1e-6)


def test_a_full_disk_is_one_line_and_the_build_goes_on_with_more_room(tmp_path, teacher):
    folder, said = tmp_path / 'answers', tmp_path / 'said'

    def without_room():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            find_or_build(cached(tmp_path, teacher, folder=folder))
        except InputError as error:
            said.write_text(str(error))

    child(without_room).join(60)
    assert 'cannot be written' in said.read_text() and 'MB' in said.read_text() and '\n' not in said.read_text()
    assert not folder.with_name('answers.part').exists()
    find_or_build(cached(tmp_path, teacher, folder=folder))


@pytest.mark.parametrize('make', [
    lambda place: place.write_text('mine'), lambda place: place.symlink_to('nothing'), os.mkfifo,
    lambda place: (place / 'mine').mkdir(parents=True)], ids=['file', 'link', 'pipe', 'folder'])
def test_what_is_in_the_way_is_known_before_the_answers_are_computed(tmp_path, teacher, make):
    make(tmp_path / 'answers')
    with pytest.raises(InputError, match=r'answers cannot be written \(it is there, and is no empty folder\)'):
        find_or_build(cached(tmp_path, teacher, folder=tmp_path / 'answers'))
    assert not (tmp_path / 'answers.part').exists()
    (tmp_path / 'empty').mkdir()
    find_or_build(cached(tmp_path, teacher, folder=tmp_path / 'empty'))


def test_a_disk_that_fills_up_later(tmp_path, teacher, monkeypatch):
    pwrite, calls = os.pwrite, []

    def failing(*args):
        calls.append(args)
        if len(calls) > 5:
            raise OSError(28, 'No space left on device')
        return pwrite(*args)

    monkeypatch.setattr(os, 'pwrite', failing)
    folder = tmp_path / 'answers'
    one_line(lambda: find_or_build(cached(tmp_path, teacher, folder=folder)), 'No space left')
    monkeypatch.setattr(os, 'pwrite', pwrite)
    find_or_build(cached(tmp_path, teacher, folder=folder))
    find_or_build(cached(tmp_path, teacher, folder=tmp_path / 'whole'))
    assert contents(folder) == contents(tmp_path / 'whole')


def test_a_folder_that_cannot_be_made(tmp_path, teacher):
    (tmp_path / 'file').write_text('')
    one_line(lambda: find_or_build(cached(tmp_path, teacher, folder=tmp_path / 'file' / 'answers')), 'file')
