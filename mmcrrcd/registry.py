"""The registries of mmcrrcd: children of mmengine's, so that every part can be named from any OpenMMLab project.

A text config under another default scope writes the full name, ``type='mmcrrcd.CRRCD'``; nothing else has to be imported.
"""
from mmengine import registry as mmengine
from mmengine.registry import Registry

SCOPE = 'mmcrrcd'

MODELS = Registry('model', parent=mmengine.MODELS, scope=SCOPE, locations=['mmcrrcd.models'])
DATASETS = Registry('dataset', parent=mmengine.DATASETS, scope=SCOPE, locations=['mmcrrcd.datasets'])
TRANSFORMS = Registry('transform', parent=mmengine.TRANSFORMS, scope=SCOPE, locations=['mmcrrcd.datasets.transforms'])
FUNCTIONS = Registry('function', parent=mmengine.FUNCTIONS, scope=SCOPE, locations=['mmcrrcd.datasets', 'mmcrrcd.engine'])
HOOKS = Registry('hook', parent=mmengine.HOOKS, scope=SCOPE, locations=['mmcrrcd.engine'])
LOOPS = Registry('loop', parent=mmengine.LOOPS, scope=SCOPE, locations=['mmcrrcd.engine'])
OPTIM_WRAPPERS = Registry('optim wrapper', parent=mmengine.OPTIM_WRAPPERS, scope=SCOPE, locations=['mmcrrcd.engine'])
METRICS = Registry('metric', parent=mmengine.METRICS, scope=SCOPE, locations=['mmcrrcd.evaluation'])
VISBACKENDS = Registry('vis_backend', parent=mmengine.VISBACKENDS, scope=SCOPE, locations=['mmcrrcd.visualization.backends'])

# mmengine builds whatever a Runner's ``model`` names from MODELS, so algorithms and losses live there;
# these are the names under which users of OpenMMLab look for them.
ALGORITHMS = MODELS
LOSSES = MODELS
