"""Small inputs on which users of this field stumbled, each in ../shared/cases: refused in one line, or it works.

Each ``case.py`` runs as it stands, but its tools run in this process.
"""
import importlib
import importlib.util
import io
import logging
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer
from utils import SHARED, shared_file

from mmcrrcd.datasets.read_image import read_image

ROOT = Path(__file__).parents[1]
# Words of today: what the cases call by an older name.
NAMES = {'restore=True': 'upsample=True', 'num_negatives=12, dim=16': 'num_negatives=12', 'num_negatives=16, dim=16':
         'num_negatives=16'}
# Case: what its output shows. Texts are regular expressions, all of which are found; 'rc=1' stands for one line.
EXPECTED = dict(
    ann_labels_from_one=[r'rc=1\n.*labels in \S*t.txt go from 1 to 4, and the network has 4 classes'],
    array_labels=[r'\(N, 1\): built, labels of a batch \[0, 1, 2\]', 'one-hot: InputError: .*argmax', r'list: built',
                  'tensor: built', '0.5 more: InputError: .*whole numbers, got 0.5', 'NaN: InputError: .*got nan'],
    checkpoint_no_num_batches_tracked=['mmcrrcd: loaded'],
    checkpoint_under_model=["'epoch': 3}: loaded"],
    concat_memory_bank=[r'rc=1\n.*crd knows images by their positions'],
    cpu_segfault_narrow_student=['rc=0'],
    drop_last_nothing=[r'rc=1\n.*train_dataloader has no batch: 4 images, batch_size=16', 'checkpoint: False'],
    early_stopped_teacher=[r'(?s)rc=0.*rc=0.*rc=1\n.*cfg has a training already'],
    evaluator_of_the_other_path=[r'rc=1\n.*BatchAccuracy is for data in memory', r'rc=1\n.*Accuracy is for samples of a'],
    export_restore_64=[r'(?s)8×8 px, then to 64×64 px.*8×8 px, then to 64×64 px'],
    face_16bit_grey=['FaceFolder: 124'],
    face_exif=['FaceFolder, upper half: 255'],
    fast_path_wrappers=[r'(?s)repeat.py\n  rc=0.*concat.py\n  rc=0.*kfold.py\n  rc=0'],
    grey_export=[r'(?s)rc=0.*rc=0.*rc=0\n.*accuracy/top1'],
    import_dataparallel=['model: taken', 'state_dict: taken', 'module.: taken'],
    last_batch_of_one=[r'rc=1\n.*the last batch of each epoch has one image'],
    mmpretrain_vgg=['built'],
    multilabel=[r'rc=1\n.*several labels or tasks are not supported'],
    resolution_pair_in_training_only=[r'rc=1\n.*train_dataloader has ResolutionPair\(resolution=8\) and that of val_'],
    resume_moved=[r'(?s)rc=0.*rc=0.*rc=0'],
    student_mixup_ignored=[r'rc=1\n.*(batch_augments|mix)'],
    teacher_hrnet=['built'],
    teacher_other_classes=['built'],
    teacher_refused_as_small=[r'(?s)rc=0.*rc=0'],
    teacher_without_adapter=['built|PlainNetwork'],
    test_confusion_matrix=[r'(?s)rc=0.*rc=0', 'm.json written: True'],
    tinyimagenet_val_in_folders=['val/<class>/<image>: 200'],
    two_classes_top5=[r'rc=1\n.*topk=5, and the network has 2 classes'],
    unlabelled_folder=['rc=0'],
    val_class_missing=[r'accuracy/top1 100', r'(?s)has 3 classes and the training 4: b is missing.*has 3 classes and the '
                       'training 4: b is missing'],
    zero_byte_image=[r'rc=1\n.*train/b/empty.png cannot be read as an image \(it is empty\)'],
)
QUICK = {'array_labels', 'checkpoint_no_num_batches_tracked', 'checkpoint_under_model', 'face_16bit_grey', 'face_exif',
         'import_dataparallel', 'teacher_other_classes', 'teacher_without_adapter'}


def run_tool(name: str, *args, cwd=None, tail=3, show=True, **_) -> tuple[int, str]:
    """As the cases' own, which starts an interpreter: exit status and output, whose last lines are printed."""
    for kind in (MMLogger, MessageHub, Visualizer):      # whose names are those of the second in which they are made
        kind._instance_dict.clear()
    out, status = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(out):
        patch.chdir(cwd or '.')
        try:
            importlib.import_module(f'tools.{name}').main([*map(str, args)])
        except SystemExit as error:
            status = 1 if isinstance(error.code, str) else error.code or 0
            assert '\n' not in str(error.code)
            out.write(f'{error.code}\n')
    lines = [line for line in out.getvalue().splitlines() if line.strip()]
    print(f'$ tools/{name}.py {" ".join(map(str, args))}\n  rc={status}', *(f'  | {line[:400]}' for line in lines[-tail:]),
          sep='\n')
    return status, out.getvalue()


def kit_for(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location('kit', SHARED / 'cases' / 'kit.py')
    kit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kit)
    for old, new in NAMES.items():
        kit.MODEL = kit.MODEL.replace(old, new)
    kit.tool, kit.here = run_tool, lambda name: folder
    return kit


def test_the_list_is_complete():
    shared_file('cases')
    assert {path.name for path in (SHARED / 'cases').iterdir() if path.is_dir() and '__' not in path.name} == set(EXPECTED)


@pytest.mark.parametrize('name', [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in EXPECTED])
def test_case(name, tmp_path, monkeypatch, capsys):
    file = shared_file('cases', name, 'case.py')
    text = file.read_text().split('TORCH =')[0]          # PyTorch by itself, which crashes, is left out
    for old, new in NAMES.items():
        text = text.replace(old, new)
    monkeypatch.setenv('MMCRRCD_MAIN', str(ROOT))
    monkeypatch.setitem(sys.modules, 'kit', kit_for(tmp_path))
    reader = SimpleNamespace(read_image=lambda path: torch.from_numpy(read_image(path).copy()).permute(2, 0, 1)[None])
    monkeypatch.setitem(sys.modules, 'predict', reader)  # whose reader has moved
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setattr(logging, 'disable', lambda *_: None)
    if name == 'cpu_segfault_narrow_student' and not survives(tmp_path):
        pytest.fail('the convolution crashes')
    exec(compile(text, str(file), 'exec'), dict(__name__='__main__', __file__=str(file)))
    printed = capsys.readouterr().out
    for wanted in EXPECTED[name]:
        assert re.search(wanted, printed), printed


def survives(folder: Path) -> bool:
    """Does the gradient of a narrow convolution end, in a process of its own?"""
    program = ('import torch; from mmcrrcd.models.networks import use_channels_last as f; c = f(torch.nn.Sequential('
               'torch.nn.Conv2d(8, 16, 1, 2))); x = torch.randn(1, 8, 64, 64).to(memory_format=torch.channels_last); '
               'c(x).sum().backward()')
    return subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True).returncode == 0
