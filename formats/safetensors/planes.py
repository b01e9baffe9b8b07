"""Tensors that lie in several places: how Transformers stores MXFP4 (GPT-OSS), and the way back to one tensor.

`X_blocks`, U8 (..., n, 16), holds the nibbles of n blocks of 32 numbers per row, `X_scales`, U8 (..., n), their
exponents (E8M0). Here both are one tensor called `X_blocks` of shape (..., n * 32).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, NoReturn

from hubclient.errors import DamagedInput, UnsupportedEncoding
from hubclient.formats.encodings import ENCODINGS
from hubclient.formats.model import Extent, TensorRef, TensorSpec
from hubclient.ground.names import shown


class Stored(NamedTuple):
    """A tensor as a header describes it: its name, safetensors dtype and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


Split = Callable[[TensorSpec], Iterable[tuple[str, str, tuple[int, ...]]]]  # one `Stored` for each plane, in their order

BLOCKS, SCALES = "_blocks", "_scales"
_MXFP4 = ENCODINGS["MXFP4_PLANES"]
_NIBBLES = _MXFP4.planes[0]


def split(tensor: TensorSpec) -> tuple[Stored, Stored]:
    """The two tensors that Transformers expects; UnsupportedEncoding for any other encoding with planes."""
    if tensor.encoding != _MXFP4:
        raise UnsupportedEncoding(f"safetensors has no type for {tensor.encoding}, which tensor {shown(tensor.name)} is to have")
    if not tensor.name.endswith(BLOCKS):
        raise UnsupportedEncoding(
            f"tensor {shown(tensor.name)} cannot be {_MXFP4} in safetensors: its name does not end in {BLOCKS}"
        )
    *rows, columns = tensor.shape
    count = columns // _MXFP4.block
    return Stored(tensor.name, "U8", (*rows, count, _NIBBLES)), Stored(_scales_of(tensor.name), "U8", (*rows, count))


def join(tensors: Mapping[str, TensorRef]) -> dict[str, TensorRef]:
    """The tensors with each pair of blocks and scales as one, in the place of the blocks.

    Only what looks like the blocks of a matrix counts: the name, U8, three axes or more, rows of sixteen. DamagedInput if
    such a tensor has no scales, or not as many as it has blocks.
    """
    blocks = {name for name, ref in tensors.items() if name.endswith(BLOCKS) and _are_blocks(ref)}
    if not blocks:
        return dict(tensors)
    scales = {_scales_of(name) for name in blocks}
    return {name: _joined(ref, tensors) if name in blocks else ref for name, ref in tensors.items() if name not in scales}


def _are_blocks(ref: TensorRef) -> bool:
    return ref.encoding.name == "U8" and len(ref.shape) > 2 and ref.shape[-1] == _NIBBLES


def _scales_of(name: str) -> str:
    return name.removesuffix(BLOCKS) + SCALES


def _joined(blocks: TensorRef, tensors: Mapping[str, TensorRef]) -> TensorRef:
    scales = tensors.get(_scales_of(blocks.name))
    if scales is None:
        _refuse(blocks, f"holds blocks of {_MXFP4}, but there is no {shown(_scales_of(blocks.name))}")
    *rows, count, _ = blocks.shape
    if scales.encoding != blocks.encoding or scales.shape != (*rows, count):
        told = f"{scales.encoding} {shown(list(scales.shape))}"
        _refuse(blocks, f"holds blocks of {_MXFP4} of shape {shown(list(blocks.shape))}, which {told} of scales do not fit")
    nbytes = blocks.nbytes + scales.nbytes
    planes = tuple(Extent(ref.file, ref.offset, ref.nbytes) for ref in (blocks, scales))
    return TensorRef(blocks.name, (*rows, count * _MXFP4.block), _MXFP4, blocks.file, blocks.offset, nbytes, planes=planes)


def _refuse(ref: TensorRef, fault: str) -> NoReturn:
    raise DamagedInput(f"tensor {shown(ref.name)} {fault}", file=ref.file, tensor=ref.name)
