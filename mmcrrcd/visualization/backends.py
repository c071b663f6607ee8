"""Where numbers of a training can be watched, beside its own log."""
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config

from mmcrrcd.errors import InputError

BACKENDS = dict(tensorboard='TensorboardVisBackend', wandb='WandbVisBackend', mlflow='MLflowVisBackend')
PROJECT = 'mmcrrcd'


def add_backends(cfg: Config, names: list[str]) -> None:
    """Adds backends of mmengine to the visualizer of ``cfg``: each takes every number that the log shows.

    TensorBoard reads the work directory. W&B and MLflow call a training by its work directory's name, in the project
    ``mmcrrcd``. Who is logged in, and where the server is, they read from their own environment variables.

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
    there = {getattr(each['type'], '__name__', each['type']) for each in backends}
    run = Path(cfg.work_dir).name
    settings = dict(wandb=dict(init_kwargs=dict(project=PROJECT, name=run)), mlflow=dict(exp_name=PROJECT, run_name=run))
    for name in names:
        if find_spec(name) is None and not (name == 'tensorboard' and find_spec('tensorboardX')):
            raise InputError(f'--vis {name} needs the package {name}: pip install {name}')
        if BACKENDS[name] not in there:
            backends.append(dict(type=f'mmengine.{BACKENDS[name]}', **settings.get(name, {})))
    visualizer.vis_backends = backends
