"""One tensor out of `.weight`, `.scales` and `.biases`, checked, and the way back to their names and shapes.

`X.weight`, U32 (..., columns * bits / 32), holds the packed numbers of a matrix (..., columns); `X.scales` and `X.biases`,
(..., columns / group), what each group of a row is multiplied with and what is added. In the modes mxfp4, nvfp4 and
mxfp8 the scales are bytes (U8) and there are no biases. Here all that is one tensor called `X.weight`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from hubclient.errors import DamagedInput, UnsupportedEncoding
from hubclient.formats.encodings import BF16, F16, F32
from hubclient.formats.mlx.packing import PACKINGS, Packing, Quantization
from hubclient.formats.model import Extent, TensorRef, TensorSpec
from hubclient.formats.safetensors.planes import Stored
from hubclient.ground.names import shown

WEIGHT, SCALES, BIASES = ".weight", ".scales", ".biases"
_WORD = 32  # bits


def split(tensor: TensorSpec) -> tuple[Stored, ...]:
    """The tensors that mlx-lm expects; UnsupportedEncoding for one that is not called `.weight`."""
    if not tensor.name.endswith(WEIGHT) or tensor.encoding.name not in PACKINGS:
        raise UnsupportedEncoding(f"tensor {shown(tensor.name)} cannot be {tensor.encoding} in an MLX folder")
    packing, dtype = PACKINGS[tensor.encoding.name]
    module, (*rows, columns) = tensor.name.removesuffix(WEIGHT), tensor.shape
    words = Stored(tensor.name, "U32", (*rows, columns * packing.bits // _WORD))
    kind, groups = str(dtype.safetensors) if dtype else "U8", (*rows, columns // packing.group)
    scales = Stored(module + SCALES, kind, groups)
    return (words, scales, Stored(module + BIASES, kind, groups)) if dtype else (words, scales)


def join(tensors: Mapping[str, TensorRef], quantization: Quantization | None, config: Path) -> dict[str, TensorRef]:
    """The tensors with the planes of each packed matrix as one, in the place of its words.

    `config` is the path of the config.json that says `quantization`. DamagedInput names the tensor that does not fit it.
    """
    packed = {name.removesuffix(SCALES): None for name in tensors if name.endswith(SCALES)}
    packed |= {name.removesuffix(WEIGHT): None for name, ref in tensors.items() if name.endswith(WEIGHT) and _is_words(ref)}
    if quantization is not None:
        packed |= {module: None for module, packing in quantization.overrides.items() if packing is not None}
    if not packed:
        return dict(tensors)
    joined = {module + WEIGHT: _joined(module, tensors, quantization, config) for module in packed}
    taken = {module + suffix for module in packed for suffix in (SCALES, BIASES)}
    return {name: joined.get(name, ref) for name, ref in tensors.items() if name not in taken}


def _is_words(ref: TensorRef) -> bool:
    return ref.encoding.name == "U32"


def _joined(module: str, tensors: Mapping[str, TensorRef], quantization: Quantization | None, config: Path) -> TensorRef:
    words, scales, biases = (tensors.get(module + suffix) for suffix in (WEIGHT, SCALES, BIASES))
    if words is None:
        if scales is None:
            raise DamagedInput(f"quantization of {shown(module)}: there is no tensor {shown(module + WEIGHT)}", file=config)
        _refuse(scales, f"are scales, but there is no tensor {shown(module + WEIGHT)}")
    packing = quantization.of(module) if quantization else None
    if packing is None:
        said = "has no quantization" if quantization is None else "says that it is not quantised"
        _refuse(words, f"is packed, but config.json {said}")
    if not _is_words(words):
        _refuse(words, f"is {words.encoding}, but it has scales, or config.json says that it is quantised")
    if scales is None:
        _refuse(words, f"is packed, but there is no tensor {shown(module + SCALES)}")
    if module + ".global_scale" in tensors:
        raise UnsupportedEncoding(
            f"{words.file}: tensor {words.name} has a global scale besides its scales, which is not read here"
        )
    return _one(words, scales, biases, packing)


def _one(words: TensorRef, scales: TensorRef, biases: TensorRef | None, packing: Packing) -> TensorRef:
    """The planes as one tensor, if they are what the packing asks for."""
    _check_scales(words, scales, biases, packing)
    *rows, count = words.shape if words.shape else (0,)
    *others, groups = scales.shape if scales.shape else (0,)
    columns = groups * packing.group
    if not rows or rows != others or count * _WORD != columns * packing.bits:
        told = f"{packing.bits} bits in groups of {packing.group}"
        shapes = f"{shown(list(words.shape))} of words and {shown(list(scales.shape))} of scales"
        _refuse(words, f"has the shapes {shapes}, which do not fit {told}, as config.json says")
    planes = tuple(Extent(ref.file, ref.offset, ref.nbytes) for ref in (words, scales, biases) if ref is not None)
    encoding, nbytes = packing.encoding(scales.encoding), sum(plane.nbytes for plane in planes)
    return TensorRef(words.name, (*rows, columns), encoding, words.file, words.offset, nbytes, planes=planes)


def _check_scales(words: TensorRef, scales: TensorRef, biases: TensorRef | None, packing: Packing) -> None:
    if packing.mode != "affine":
        if scales.encoding.name != "U8":
            _refuse(scales, f"is {scales.encoding} where the scales of mode {packing.mode} are U8")
        if biases is not None:
            _refuse(biases, f"has no place: there are no biases in mode {packing.mode}")
        return
    if scales.encoding not in (F32, F16, BF16):
        _refuse(scales, f"is {scales.encoding} where scales are F32, F16 or BF16")
    if biases is None:
        _refuse(words, f"is packed, but there is no tensor {shown(words.name.removesuffix(WEIGHT) + BIASES)}")
    if (biases.encoding, biases.shape) != (scales.encoding, scales.shape):
        have = f"is {biases.encoding} {shown(list(biases.shape))}"
        _refuse(biases, f"{have}, but {shown(scales.name)} is {scales.encoding} {shown(list(scales.shape))}")


def _refuse(ref: TensorRef, fault: str) -> NoReturn:
    raise DamagedInput(f"tensor {shown(ref.name)} {fault}", file=ref.file, tensor=ref.name)
