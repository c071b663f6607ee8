"""A student in an ONNX file, run by onnxruntime."""
import json
from pathlib import Path

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmcrrcd.errors import InputError
from mmcrrcd.onnx_session import open_session, running, told
from mmcrrcd.registry import MODELS
from mmcrrcd.structures import NetworkOutput, Pair


@MODELS.register_module()
class OnnxClassifier(BaseModel):
    """A student in an ONNX file, as ``tools/export_student.py --onnx`` writes it.

    The file takes RGB images (N, H, W, 3) uint8 and gives probabilities (N, classes). In tests and predictions it stands where
    the network stood. Its images (N, 3, h, w) are RGB from 0 to 255, as a data preprocessor with a mean of 0 and a std of 1
    makes them. Its logits are the logarithms of the probabilities.

    Args:
        file: such a file.
        data_preprocessor: for tests, see above.

    Attributes:
        resolution: height and width of its images.
        classes: their names.
        view: settings of the :class:`StudentView` with which it was trained.

    Raises:
        InputError: onnxruntime is not installed, or the file cannot be run, or is another network.
    """

    def __init__(self, file: str | Path, data_preprocessor: dict | nn.Module | None = None):
        super().__init__(data_preprocessor)
        self.file = str(file)
        self.session = open_session(self.file)
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        shapes = [(x.type, len(x.shape), *x.shape[-1:]) for x in inputs], [(x.type, len(x.shape)) for x in outputs]
        if shapes != ([('tensor(uint8)', 4, 3)], [('tensor(float)', 2)]) or isinstance(inputs[0].shape[0], int):
            raise InputError(f'{file} should take images (N, H, W, 3) in uint8 and give probabilities (N, classes) in float32, '
                             f'as tools/export_student.py writes it; it takes {told(inputs)}, and gives {told(outputs)}')
        self.input = inputs[0].name
        self.resolution = tuple(inputs[0].shape[1:3])
        try:
            notes = self.session.get_modelmeta().custom_metadata_map
            self.classes, self.view = json.loads(notes.get('classes', '[]')), json.loads(notes.get('view', '{}'))
            if not isinstance(self.classes, list) or not isinstance(self.view, dict):
                raise ValueError
        except (ValueError, RecursionError) as error:
            raise InputError(f'{file}: its metadata are not those that tools/export_student.py writes') from error
        classes = outputs[0].shape[1]
        if not isinstance(classes, int) or any(not isinstance(side, int) for side in self.resolution):
            raise InputError(f'{file} should state its size of images and its number of classes')
        self.classes = list(map(str, self.classes if len(self.classes) == classes else range(classes)))

    @torch.no_grad()
    def extract(self, images: Tensor) -> NetworkOutput:
        """What it says of ``images`` (N, 3, h, w), RGB from 0 to 255. There is no embedding."""
        if tuple(images.shape[2:]) != self.resolution:
            raise InputError('{} takes images of {}×{} px, got {}×{} px'.format(self.file, *self.resolution, *images.shape[2:]))
        pixels = images.permute(0, 2, 3, 1).round().to(torch.uint8).contiguous().cpu().numpy()
        with running(self.file):
            probabilities = torch.from_numpy(self.session.run(None, {self.input: pixels})[0])
        if not probabilities.isfinite().all():
            raise InputError(f'{self.file} is of no use: the probabilities that it gives are not finite')
        return NetworkOutput((), None, probabilities.log().to(images.device), tuple(images.shape[2:]))

    def forward(self, inputs: Pair | Tensor, data_samples=None, mode: str = 'tensor'):
        """As a distiller's: 'tensor' gives logits, 'predict' what the metrics take."""
        logits = self.extract(inputs.low if isinstance(inputs, Pair) else inputs).logits
        if mode == 'tensor':
            return logits
        if mode != 'predict':
            raise InputError(f'{self.file} can be tested and asked, not trained')
        if not isinstance(data_samples, list):
            return [dict(logits=logits, labels=data_samples.labels)]
        for sample, row in zip(data_samples, logits.exp()):
            sample.set_pred_score(row).set_pred_label(row.argmax())
        return data_samples

    def __getstate__(self) -> dict:
        raise InputError(f'{self.file} is open and cannot be copied')
