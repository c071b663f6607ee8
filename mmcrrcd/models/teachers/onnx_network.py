"""A teacher in an ONNX file, run by onnxruntime."""
import logging
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmcrrcd.errors import InputError
from mmcrrcd.onnx_session import open_session, running, told, told_shape
from mmcrrcd.registry import MODELS


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
