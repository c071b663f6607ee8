"""A network in an ONNX file, run by onnxruntime."""
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmcrrcd.errors import InputError, explained, first_line
from mmcrrcd.registry import MODELS
from mmcrrcd.structures import NetworkOutput, Pair


def open_session(model: str | bytes, device: torch.device | None = None, threads: int | None = None):
    """An onnxruntime session of a file, or of its content.

    Args:
        device: on a GPU it needs onnxruntime's CUDA provider; None for the CPU.
        threads: by default torch's number.

    Raises:
        InputError: onnxruntime is not installed, or cannot run it, or there is no such file.
    """
    if isinstance(model, str) and not Path(model).is_file():
        raise InputError(f'there is no ONNX file at {model}')
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError("a network in an ONNX file needs onnxruntime: pip install 'mmcrrcd[onnx]', or onnxruntime-gpu "
                         'for a GPU') from error
    onnxruntime.disable_telemetry_events()                 # its builds for Windows report on their use
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3                         # no warnings: many files state an output of one image, and give more
    options.intra_op_num_threads = threads or torch.get_num_threads()
    providers = ['CPUExecutionProvider']
    if device is not None and device.type == 'cuda' and 'CUDAExecutionProvider' in onnxruntime.get_available_providers():
        providers.insert(0, ('CUDAExecutionProvider', dict(device_id=device.index)))
    with explained(f'onnxruntime cannot run {model if isinstance(model, str) else "the network"}', say=first_line):
        return onnxruntime.InferenceSession(model, options, providers)


@contextmanager
def running(file: str) -> Iterator[None]:
    """A block that runs a session. Raises InputError, which names the file, where onnxruntime cannot."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:                           # onnxruntime's have no class in common
        if type(error).__module__.startswith('onnxruntime'):
            raise InputError(f'onnxruntime cannot run {file}: {first_line(error)}') from error
        raise


@MODELS.register_module()
class OnnxNetwork(nn.Module):
    """Images (N, 3, H, W) to the output (N, D) of an ONNX file, both float32; without gradients.

    The file says which operators to apply to which numbers and holds no code. One that asks for operators which onnxruntime
    does not have is refused: no library of custom operators is ever loaded.

    It runs where the images are, and reads them there. On a GPU this needs onnxruntime's CUDA provider; without it the images
    are copied to the CPU. The embeddings, small beside the images, pass through the CPU.

    Args:
        file: with one input of images and one output, of a free batch size.

    Raises:
        InputError: onnxruntime is not installed, or the file cannot be run, or its input and output are others.
    """

    def __init__(self, file: str | Path):
        super().__init__()
        self.file = str(file)
        self.open(torch.device('cpu'))
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if [(x.type, len(x.shape)) for x in inputs] != [('tensor(float)', 4)]:
            raise InputError(f'{file} should have one input, images (N, 3, H, W) in float32, and has {told(inputs)}')
        if [(x.type, len(x.shape)) for x in outputs] != [('tensor(float)', 2)]:
            raise InputError(f'{file} should have one output, an embedding (N, D) in float32, and has {told(outputs)}')
        if isinstance(inputs[0].shape[0], int):
            raise InputError(f'{file} takes batches of {inputs[0].shape[0]} only: export it with a free batch size')
        self.input, self.output, self.image_shape = inputs[0].name, outputs[0].name, inputs[0].shape[1:]

    def open(self, device: torch.device) -> None:
        """Loads the file for a device; where onnxruntime lacks it, for the CPU."""
        self.session = open_session(self.file, device)
        self.device = device
        self.place = device if 'CUDAExecutionProvider' in self.session.get_providers() else torch.device('cpu')
        if self.place != device:
            print_log(f"onnxruntime has no provider for {device}: {self.file} runs on the CPU (for CUDA: pip install "
                      'onnxruntime-gpu)', 'current', logging.WARNING)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The file's output for images (N, C, H, W)."""
        if images.device != self.device:
            self.open(images.device)
        if any(isinstance(want, int) and want != have for want, have in zip(self.image_shape, images.shape[1:])):
            raise InputError(f'{self.file} takes images {told_shape(self.image_shape)}, got {told_shape(images.shape[1:])}')
        images = images.to(self.place, torch.float32).contiguous()
        index = self.place.index or 0
        binding = self.session.io_binding()
        binding.bind_input(self.input, self.place.type, index, np.float32, tuple(images.shape), images.data_ptr())
        binding.bind_output(self.output, self.place.type, index)
        if self.place.type == 'cuda':                      # onnxruntime works on a stream of its own
            torch.cuda.current_stream(self.place).synchronize()
        with running(self.file):
            self.session.run_with_iobinding(binding)
        answer = binding.get_outputs()[0].numpy()
        if not np.isfinite(answer).all():
            raise InputError(f'{self.file} is of no use: the embeddings that it gives are not finite')
        return torch.from_numpy(answer).to(self.device)

    def __getstate__(self) -> dict:
        """A copy opens the file anew: a session cannot be copied."""
        return self.__dict__ | dict(session=None, device=None)


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


def told_shape(shape) -> str:
    """A shape as one writes it."""
    return f'({", ".join(str(size) for size in shape)})'


def told(values) -> str:
    """Inputs or outputs of a file: name, type and shape of each."""
    return ' and '.join(f'{x.name}: {x.type} {told_shape(x.shape)}' for x in values)
