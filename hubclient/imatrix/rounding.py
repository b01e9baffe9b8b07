"""What ggml rounds numbers to before it multiplies them by weights of an encoding: what llama.cpp's results owe to that is in its
importance matrices too. Sources: `vec_dot_type` in ggml-cpu.c, `quantize_row_q8_0` and `quantize_row_q8_K` in ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from hubclient.formats.encodings import BF16, F16
from hubclient.formats.model import Encoding

Rounding = Callable[[torch.Tensor], torch.Tensor]
_SUPER = 256  # elements of a block of K-quants and their kin


def rounding(encoding: Encoding) -> Rounding | None:
    """What numbers along the last axis, float32, are rounded to; None if they stay what they are."""
    if encoding in (BF16, F16):
        return partial(_cast, torch.bfloat16 if encoding == BF16 else torch.float16)
    if not encoding.blocked or not (encoding.ggml or encoding.name.startswith("MXFP4")):
        return None
    return _by_super_blocks if encoding.block == _SUPER else _by_blocks


def _cast(dtype: torch.dtype, numbers: torch.Tensor) -> torch.Tensor:
    return numbers.to(dtype).to(numbers.dtype)


def _by_blocks(numbers: torch.Tensor) -> torch.Tensor:
    """Q8_0: blocks of 32, a scale in float16."""
    blocks = numbers.unflatten(-1, (-1, 32))
    scales = blocks.abs().amax(-1, keepdim=True) / 127
    levels = torch.where(scales > 0, blocks / scales, 0.0).round()
    return (levels * _cast(torch.float16, scales)).flatten(-2)


def _by_super_blocks(numbers: torch.Tensor) -> torch.Tensor:
    """Q8_K: blocks of 256, a scale in float32 by which the largest number becomes -127."""
    blocks = numbers.unflatten(-1, (-1, _SUPER))
    scales = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True)) / -127
    return (torch.where(scales != 0, blocks / scales, 0.0).round() * scales).flatten(-2)
