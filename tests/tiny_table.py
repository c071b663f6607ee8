"""A table of tiny networks, whose runs are in this process in place of ones of their own."""
import contextlib
import io

from mmengine.config import Config

import tiny
from experiments import compose, worker


class InThisProcess:
    """Stands in for ``subprocess.Popen``: it has ended when it is there."""

    def __init__(self, command, stdout, **_):
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(io.StringIO()):
            try:
                worker.main(command[-1:])
                self.returncode = 0
            except SystemExit as error:
                print(error)
                self.returncode = error.code if isinstance(error.code, int) else 1

    def poll(self) -> int:
        return self.returncode


def composed(method: str, pair: tuple[str, str], recipe: compose.Recipe) -> Config:
    """CRRCD, KD (which is it without its relational loss), the student-only baseline, the teacher, and one that fails."""
    model = tiny.crrcd('teacher.pth', beta=0.5 if method == 'crrcd' else 0)
    if method in ('student', 'teacher'):
        network, seen = (tiny.STUDENT, 8) if method == 'student' else (tiny.TEACHER, None)
        model = dict(type='mmcrrcd.Distiller', student=network, input_size=tiny.SIZE,
                     data_preprocessor=model['data_preprocessor'] | dict(resolution=seen))
    if method == 'fails':
        model['sampling'] = 'none'
        model['beta'] = 0.5
    cfg = tiny.config('unused', model, epochs=recipe.epochs or 2)
    compose.use_cache(cfg, recipe.views)
    if recipe.amp:
        cfg.optim_wrapper.type = 'mmcrrcd.BF16OptimWrapper'
    return cfg
