"""Where numbers of a training can be watched, beside its own log."""
from importlib import import_module
from importlib.util import find_spec
from logging import FileHandler
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.visualization import MLflowVisBackend

from mmcrrcd.errors import InputError
from mmcrrcd.registry import VISBACKENDS

BACKENDS = dict(tensorboard='mmengine.TensorboardVisBackend', wandb='mmengine.WandbVisBackend', mlflow='mmcrrcd.MLflowBackend')
PROJECT = 'mmcrrcd'


@VISBACKENDS.register_module()
class MLflowBackend(MLflowVisBackend):
    """mmengine's, but it writes where MLflow itself would.

    That is the server that MLFLOW_TRACKING_URI names, or ``mlflow.db`` in the current folder, where all trainings are together.
    The folder that mmengine names for each is refused by MLflow 3.
    """

    def _init_env(self) -> None:
        self._mlflow = import_module('mlflow')           # at its first import it closes the files of all logs
        for handler in MMLogger.get_current_instance().handlers:
            if isinstance(handler, FileHandler) and handler.stream is None:
                handler.stream = open(handler.baseFilename, 'a', encoding=handler.encoding)
        self._mlflow.set_experiment(self._exp_name)
        self._mlflow.start_run(run_name=self._run_name)


def add_backends(cfg: Config, names: list[str]) -> None:
    """Adds backends of mmengine to the visualizer of ``cfg``: each takes every number that the log shows.

    TensorBoard reads the work directory. W&B and MLflow call a training by its work directory's place in ``work_dirs``, in
    the project ``mmcrrcd``. Who is logged in, and where the server is, they read from settings of their own.

    Args:
        names: of :data:`BACKENDS`.

    Raises:
        InputError: a package is missing; one line names it.
    """
    if not names:
        return
    if not cfg.get('visualizer'):
        cfg.visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
    visualizer = cfg.visualizer                          # changed in place: a copy has classes in it, which no text can name
    backends = list(visualizer.get('vis_backends') or ())
    there = [getattr(each['type'], '__name__', each['type']).split('.')[-1].lower() for each in backends]
    folders = Path(cfg.work_dir).parts
    run = '/'.join(folders[folders.index('work_dirs') + 1:] if 'work_dirs' in folders[:-1] else folders[-1:])
    settings = dict(wandb=dict(init_kwargs=dict(project=PROJECT, name=run)), mlflow=dict(exp_name=PROJECT, run_name=run))
    for name in names:
        if find_spec(name) is None and not (name == 'tensorboard' and find_spec('tensorboardX')):
            raise InputError(f'--vis {name} needs the package {name}: pip install {name}')
        if not any(kind.startswith(name) for kind in there):
            backends.append(dict(type=BACKENDS[name], **settings.get(name, {})))
    visualizer.vis_backends = backends
