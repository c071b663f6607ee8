from .algorithms import *  # noqa: F401,F403
from .backbones import *  # noqa: F401,F403
from .losses import *  # noqa: F401,F403
from .networks import PlainNetwork, look  # noqa: F401
from .preprocessor import PairPreprocessor, crop_and_flip  # noqa: F401
