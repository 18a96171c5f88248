"""An image encoder that ImageNet weights exist for: EfficientNet-Lite0's trunk, its batch norms folded into the
convolutions.

Source: Tan & Le 2019 and its "lite" variant (ReLU6, no squeeze and excitation); paddings are TensorFlow's SAME.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

STAGES = (
    # repeats, kernel, stride, expansion, output channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
)
STEM_CHANNELS = 32
MEAN, STD = 127 / 255, 128 / 255
"""Of the pixels that the published weights expect."""


class SameConv(nn.Conv2d):
    """A convolution whose output has ceil(size / stride) pixels; what is missing is padded more at the far side."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolution with zeros around."""
        pads = []
        for size, kernel, stride in zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(input, pads))


class MBConv(nn.Module):
    """Inverted residual: widen, filter each channel, narrow."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = channels * expansion
        self.expand = nn.Conv2d(channels, wide, 1) if expansion > 1 else None
        self.depthwise = SameConv(wide, wide, kernel, stride, groups=wide)
        self.project = nn.Conv2d(wide, out, 1)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """Features at the block's stride."""
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class ImageEncoder(nn.Module):
    """Features at strides 2, 4, 8, 16 and 32."""

    def __init__(self, multiplier: float = 1.0):
        super().__init__()
        channels = round(STEM_CHANNELS * multiplier)
        self.stem = SameConv(3, channels, 3, 2)
        self.stages = nn.ModuleList()
        widths, strides = [], []
        for repeats, kernel, stride, expansion, out in STAGES:
            blocks = []
            for index in range(repeats):
                wide = round(out * multiplier)
                blocks.append(MBConv(channels, wide, kernel, stride if index == 0 else 1, expansion))
                channels = wide
            self.stages.append(nn.Sequential(*blocks))
            widths.append(channels)
            strides.append(stride)
        # A level ends where the next stage halves the size.
        self.ends = [i for i in range(len(STAGES)) if i + 1 == len(STAGES) or strides[i + 1] == 2]
        self.widths = [widths[i] for i in self.ends]

    def forward(self, image: Float[Tensor, "batch 3 height width"], levels: int = 5) -> list[Tensor]:
        """Features of images in [0, 1], fine to coarse, as many as asked for; sides should be multiples of 32."""
        x = F.relu6(self.stem((image - MEAN) / STD))
        features = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.ends:
                features.append(x)
            if len(features) == levels:
                break
        return features
