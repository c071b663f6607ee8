"""A student as an ONNX file that needs no other code: uint8 images in, probabilities out."""
import copy
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmcrrcd.datasets.transforms.resolution_pair import MODES
from mmcrrcd.datasets.transforms.student_view import StudentView
from mmcrrcd.errors import InputError, explained, first_line
from mmcrrcd.evaluation.classifier import Classifier
from mmcrrcd.files import write_whole
from mmcrrcd.models.networks import extract
from mmcrrcd.onnx_session import need, open_session

TOLERANCE = 1e-3
OPSET = 18


def resampling(before: int, after: int, interpolation: str, antialias: bool) -> Tensor:
    """The matrix (after, before) by which an interpolation makes ``after`` values of ``before``: it is linear."""
    options = dict(antialias=antialias, align_corners=False) if interpolation in ('bilinear', 'bicubic') else {}
    unit = torch.eye(before)[None, None]
    return nn.functional.interpolate(unit, (after, before), mode=MODES[interpolation], **options)[0, 0]


class DeployedStudent(nn.Module):
    """A student with all that came before it: from RGB images (N, h, w, 3) uint8 to probabilities. These are (N, classes)
    float32.

    In it are the order of the channels, the normalization and the layout. So are the gray image and the upsampling of its
    training, where it has them. Upsampling is two products with constant matrices, which every runtime has.

    Args:
        classifier: of the student.
        view: what it sees.
    """

    def __init__(self, classifier: Classifier, view: StudentView):
        super().__init__()
        self.network = copy.deepcopy(classifier.network).cpu().to(memory_format=torch.contiguous_format).eval()
        settings = classifier.normalization
        self.swap, self.gray, self.upsample = settings.get('to_rgb', False), view.gray, view.upsample
        for name in ('mean', 'std'):
            self.register_buffer(name, torch.tensor(settings[name], dtype=torch.float32).view(3, 1, 1))
        self.register_buffer('luminance', torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1))
        for name, before, after in zip(('rows', 'columns'), view.resolution, view.image_size):
            self.register_buffer(name, resampling(before, after, **view.how))

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (N, classes) of RGB images (N, height, width, 3) in uint8."""
        x = images.permute(0, 3, 1, 2).float()
        if self.gray:
            x = (x * self.luminance).sum(1, keepdim=True).round().expand(-1, 3, -1, -1)
        if self.upsample:
            x = (self.rows @ (x @ self.columns.T)).round().clamp(0, 255)
        if self.swap:
            x = x.flip(1)
        return extract(self.network, (x - self.mean) / self.std).logits.softmax(1)


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings of the exporter and the quantizer, which speak to their own developers."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)


def probabilities_of(session, images: np.ndarray) -> np.ndarray:
    """(N, classes) of images (N, h, w, 3)."""
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: images[i:i + 256]})[0] for i in range(0, len(images), 256)])


def export_onnx(network: DeployedStudent, file: str | Path, images: np.ndarray, wanted: np.ndarray, notes: dict) -> float:
    """Writes a student, and returns the largest difference of a probability from ``wanted``.

    Args:
        file: written only where all probabilities differ by at most 1e-3.
        images: (N, h, w, 3) uint8 to compare by, real ones.
        wanted: (N, classes), what the student says of them.
        notes: metadata, from names to what JSON can hold.

    Raises:
        InputError: a package is missing, or the network cannot be written, or its answers differ.
    """
    need('onnx', 'onnxscript', 'onnxruntime')
    import onnx
    example = torch.zeros(2, *images.shape[1:], dtype=torch.uint8)
    with explained('this student cannot be written as ONNX', say=first_line), quietly(), torch.no_grad():
        program = torch.onnx.export(network, (example, ), dynamo=True, opset_version=OPSET, input_names=['images'],
                                    output_names=['probabilities'], dynamic_shapes=({0: torch.export.Dim('N')}, ),
                                    verbose=False)
    model = program.model_proto
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in notes.items()})
    content = model.SerializeToString()
    session = open_session(content)
    found = [probabilities_of(session, part) for part in (images[:1], images[1:]) if len(part)]     # the batch size is free
    difference = float(np.abs(wanted - np.concatenate(found)).max())
    if not difference <= TOLERANCE:
        raise InputError(f'{file} is not written: a probability differs from PyTorch by {difference:.2g}, at most '
                         f'{TOLERANCE:g} is allowed')
    write_whole(file, content)
    return difference


def quantize(file: str | Path, images: np.ndarray, out: str | Path) -> None:
    """Writes an int8 version of an ONNX file: weights and activations of the network, by onnxruntime's static quantization.

    What comes before the network, the logits and the softmax stay in float32: of logits in int8 several would be equal.

    Args:
        images: (N, h, w, 3) uint8 from which the ranges of the activations are taken.
    """
    need('onnx', 'onnxruntime')
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([images[i:i + 32] for i in range(0, len(images), 32)])

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else dict(images=batch)

    with quietly(), tempfile.TemporaryDirectory() as folder:
        prepared = os.path.join(folder, 'prepared.onnx')
        quant_pre_process(str(file), prepared, skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        first = next((i for i, node in enumerate(nodes) if node.op_type == 'Conv'), 0)
        around = [node.name for i, node in enumerate(nodes) if i < first or node.op_type == 'Softmax']
        written = os.path.join(folder, 'int8.onnx')
        quantize_static(prepared, written, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=around,
                        extra_options=dict(OpTypesToExcludeOutputQuantization=['Gemm', 'MatMul']))
        model = onnx.load(written)
    onnx.helper.set_model_props(model, {each.key: each.value for each in onnx.load(str(file)).metadata_props})
    write_whole(out, model.SerializeToString())
