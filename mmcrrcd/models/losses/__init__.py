from .critic import RelationCritic
from .kd import KDLoss, kd_loss
from .relation import FeatureRelation
from .relation_contrast import RelationContrastLoss, contrast

__all__ = ['FeatureRelation', 'KDLoss', 'RelationContrastLoss', 'RelationCritic', 'contrast', 'kd_loss']
