"""A file for each method; base.py has their contract."""
from .ab import ABLoss, ab_loss
from .at import ATLoss, attention_loss
from .base import DistillLoss
from .cc import CCLoss, cc_loss
from .center import CenterLoss, center_loss
from .cosine import CosineLoss
from .crcd import CRCDLoss, relation_scores
from .crd import CRDLoss, bank_scores, nce_loss
from .dist import DISTLoss, dist_loss
from .dkd import DKDLoss, dkd_loss
from .fitnet import FitNetLoss, hint_loss
from .fsp import FSPLoss, fsp_loss
from .ft import FTLoss, factor_loss
from .horkd import HORKDLoss, horkd_losses
from .itrd import ITRDLoss, correlation_loss, mutual_loss
from .kd import KDLoss, kd_loss
from .lskd import LSKDLoss, lskd_loss
from .nst import NSTLoss, nst_loss
from .pkt import PKTLoss, pkt_loss
from .relation_contrast import RelationContrastLoss, contrast
from .rkd import RKDLoss, rkd_angle_loss, rkd_distance_loss
from .skd import SKDLoss, skd_loss
from .sp import SPLoss, sp_loss
from .srd import SRDLoss, log_sum_loss
from .vid import VIDLoss, vid_loss
from .wcord import WCoRDLoss, transport_loss
from .wttm import WTTMLoss, wttm_loss

__all__ = [
    'ABLoss', 'ATLoss', 'CCLoss', 'CRCDLoss', 'CRDLoss', 'CenterLoss', 'CosineLoss', 'DISTLoss', 'DKDLoss', 'DistillLoss',
    'FSPLoss', 'FTLoss', 'FitNetLoss', 'HORKDLoss', 'ITRDLoss', 'KDLoss', 'LSKDLoss', 'NSTLoss', 'PKTLoss', 'RKDLoss',
    'RelationContrastLoss', 'SKDLoss', 'SPLoss', 'SRDLoss', 'VIDLoss', 'WCoRDLoss', 'WTTMLoss', 'ab_loss', 'attention_loss',
    'bank_scores', 'cc_loss', 'center_loss', 'contrast', 'correlation_loss', 'dist_loss', 'dkd_loss', 'factor_loss',
    'fsp_loss', 'hint_loss', 'horkd_losses', 'kd_loss', 'log_sum_loss', 'lskd_loss', 'mutual_loss', 'nce_loss', 'nst_loss',
    'pkt_loss', 'relation_scores', 'rkd_angle_loss', 'rkd_distance_loss', 'skd_loss', 'sp_loss', 'transport_loss', 'vid_loss',
    'wttm_loss',
]
