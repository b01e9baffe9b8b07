"""The MLX spoke's way in: the canonical view of a folder that mlx-lm, or we, wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hubclient.architectures.language.arrays import Array
from hubclient.architectures.language.config import restore
from hubclient.errors import DamagedInput, UnsupportedArchitecture
from hubclient.formats.encodings import BF16, ENCODINGS, F32
from hubclient.formats.jsonfile import read_object
from hubclient.formats.mlx.packing import PACKINGS
from hubclient.formats.model import Encoding, OpenedCheckpoint
from hubclient.formats.tokenizers import is_tokenizer_file
from hubclient.model import Model, Naming, encodings_of, leaf
from hubclient.spokes import carried as own
from hubclient.spokes import huggingface, projector, rebuild
from hubclient.spokes.matching import converted, located, match
from hubclient.spokes.packed import without_settings

if TYPE_CHECKING:
    from hubclient.architectures.language.declaration import Architecture
    from hubclient.architectures.language.layouts import Layout
    from hubclient.plugins import Host

QUANTIZATION = ("quantization", "quantization_config")
"""Keys of config.json that say how matrices are packed."""

_BLOCKS = ENCODINGS["MXFP4_PLANES"]  # which Transformers has too


def read(opened: OpenedCheckpoint, host: Host) -> Model:
    """The canonical view of an MLX folder."""
    if "config.json" not in opened.sidecars:
        raise DamagedInput(f"{opened.path}: there is no config.json beside the weights, so nothing says what model this is")
    path = opened.sidecars["config.json"]
    carried = own.load(opened.metadata, opened.path)
    raw = {key: value for key, value in read_object(path).items() if key not in QUANTIZATION}
    raw = restore(raw, carried.config) if carried else raw
    architecture, hf_class = huggingface.recognise(raw, path, host)
    config = huggingface.normalised(raw, architecture, opened)
    tensors = _tensors(opened, architecture, config)
    naming = carried.naming if carried else Naming(not architecture.headless(hf_class))
    known = carried.all_dtypes(tensors) if carried else {}
    return Model(
        opened=opened, architecture=architecture, hf_class=hf_class, config=config, raw_config=_with_blocks(raw, tensors),
        tensors=tensors, naming=naming, dtypes={name: _dtype(array, known.get(name)) for name, array in tensors.items()},
        files=huggingface.LazyFiles(
            {name: file for name, file in opened.sidecars.items() if name != "config.json" and not is_tokenizer_file(name)}
        ),
        losses=tuple(huggingface.left_behind(opened)), lacking=_lacking(architecture, tensors),
        metadata={key: value for key, value in opened.metadata.items() if key != "format" and not key.startswith("hubclient.")},
        load_tokenizer=lambda: huggingface.read_tokenizer(opened.sidecars),
    )  # fmt: skip


def _lacking(architecture: Architecture, tensors: Mapping[str, Array]) -> tuple[str, ...]:
    if projector.SPACE not in architecture.layouts or any(projector.belongs(architecture, name) for name in tensors):
        return ()
    return ("the vision part, which mlx-lm leaves out",)


def layout_of(architecture: Architecture) -> Layout:
    """The architecture's layout for MLX; UnsupportedArchitecture if it has none."""
    if "mlx" not in architecture.layouts:
        raise UnsupportedArchitecture(f"{architecture.name} has no MLX layout", architecture.name)
    return architecture.layouts["mlx"]


def check_sizes(
    opened: OpenedCheckpoint, architecture: Architecture, config: Mapping[str, Any], tensors: Mapping[str, Array]
) -> None:
    """DamagedInput if the shapes of Hugging Face tensors contradict the config."""
    shapes = {name: array.shape for name, array in tensors.items()}
    located(opened, lambda: rebuild.check_sizes(architecture, config, shapes))
    located(opened, lambda: rebuild.check_shapes(architecture, config, shapes, complete=True))


def _tensors(opened: OpenedCheckpoint, architecture: Architecture, config: Mapping[str, Any]) -> dict[str, Array]:
    """The Hugging Face tensors behind MLX's, held against the config."""
    layout_of(architecture)
    stored: dict[str, Array] = {name: leaf(ref) for name, ref in opened.tensors.items()}
    matching = located(opened, lambda: match(architecture, "mlx", stored, "target", config, str(opened.path)))
    tensors = located(opened, lambda: converted(matching, stored, config, "target"))
    if tensors:
        check_sizes(opened, architecture, config, tensors)
    return tensors


def _dtype(array: Array, known: Encoding | None) -> Encoding:
    """What a tensor is in Hugging Face terms: what it was, if that is known, else the dtype that MLX computes with.

    Blocks that Transformers has as well stay blocks where their rows only move, and only there.
    """
    own_encodings = encodings_of(array)
    if own_encodings == {_BLOCKS} and array.moves_rows and (known is None or known == _BLOCKS):
        return _BLOCKS
    if known is not None and not known.planes:
        return known
    plain = {_computed(encoding) for encoding in own_encodings}
    return plain.pop() if len(plain) == 1 else F32


def _computed(encoding: Encoding) -> Encoding:
    """The dtype of mx.dequantize's result: that of the scales, or bfloat16 where those are bytes."""
    return (PACKINGS[encoding.name][1] or BF16) if encoding.name in PACKINGS else encoding


def _with_blocks(raw: Mapping[str, Any], tensors: Mapping[str, Array]) -> dict[str, Any]:
    """config.json with `quantization_config` if, and only if, tensors are packed in a way that Transformers reads."""
    packed = any(encodings_of(array) == {_BLOCKS} and array.moves_rows for array in tensors.values())
    plain = without_settings(raw)
    if not packed:
        return plain
    return {**raw, "quantization_config": {"quant_method": "mxfp4"}} if plain == raw else dict(raw)
