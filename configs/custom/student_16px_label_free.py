# python tools/train.py configs/custom/student_16px_label_free.py --cfg-options data_root=my_images \
#     model.teacher.network.file=embedding.onnx
from mmengine.config import read_base

with read_base():
    from .student_16px import *

from mmcrrcd.models import CosineLoss, EmbeddingNetwork, OnnxNetwork

# The student learns the embedding of a network in an ONNX file, from images without classes; folders are not looked at.
teacher_config = val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None
model.update(teacher_checkpoint=None, cls_weight=0, alpha=0, sampling='unsupervised')
model.objective = dict(cosine=dict(type=CosineLoss))
model.teacher = dict(type=EmbeddingNetwork, network=dict(type=OnnxNetwork, file='embedding.onnx'), input_size=224)
model.student.head.update(num_classes=1)                 # there are none: ask for student.embed(images)
train_dataloader.dataset.update(labels=False)
default_hooks.checkpoint.update(save_best=None)
