# python tools/train.py configs/crrcd/resnet56_resnet20_cifar100_8px.py --work-dir work_dirs/ablations/tau_0.02 \
#     --cfg-options model.tau=0.02
"""Settings of CRRCD's model, each a change of the default, for any config of configs/crrcd.

Sec. IV-C and Figure 3 of the paper: number of negatives, temperature, sampling, width. The rest: what the paper leaves open.
"""
ablations = {
    'default': {},        # direction form, n 512, tau 0.1, beta 0.2, alpha 0.5, supervised, 16 anchors, softmax
    'learned': dict(relation='learned'),                 # dim 128, centered
    'student_alone': dict(alpha=0, beta=0),
    'kd': dict(beta=0),
    'negatives_64': dict(num_negatives=64),              # not fewer than the batch
    'negatives_128': dict(num_negatives=128),
    'negatives_256': dict(num_negatives=256),
    'negatives_1024': dict(num_negatives=1024),
    'in_batch': dict(num_negatives=None),                # no queue: the batch itself
    'tau_0.02': dict(tau=0.02),
    'tau_0.05': dict(tau=0.05),
    'tau_0.07': dict(tau=0.07),
    'tau_0.08': dict(tau=0.08),
    'tau_0.2': dict(tau=0.2),
    'tau_0.3': dict(tau=0.3),
    'beta_0.05': dict(beta=0.05),
    'beta_0.5': dict(beta=0.5),
    'beta_1': dict(beta=1),
    'beta_2': dict(beta=2),
    'alpha_0': dict(alpha=0),                            # without KD
    'dim_64': dict(relation='learned', dim=64),
    'dim_256': dict(relation='learned', dim=256),
    'unsupervised': dict(sampling='unsupervised'),
    'anchors_1': dict(num_anchors=1),
    'anchors_8': dict(num_anchors=8),
    'anchors_32': dict(num_anchors=32),
    'anchors_all': dict(num_anchors=None),
    'softmax_not_centred': dict(relation='learned', center=None),
    'batch': dict(relation='learned', normalizer='batch'),                                # Z of the first batch, as in CRD
    'batch_not_centred': dict(relation='learned', normalizer='batch', center=None),
    # Eq. 10, with the default's beta and with the paper's
    'as_printed_beta_0.2': dict(relation='learned', normalizer='none', center=None, num_samples=50_000),
    'as_printed': dict(relation='learned', normalizer='none', center=None, num_samples=50_000, beta=2),
}
