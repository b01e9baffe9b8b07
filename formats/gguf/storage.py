"""Which encoding each tensor of a GGUF gets when the user asks for one type, and the numbers that files carry about it.

The rules and tables of llama.cpp's converter (`prepare_tensors` in conversion/base.py, `LlamaFileType` in gguf-py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from hubclient.formats.encodings import BF16, ENCODINGS, F16, F32
from hubclient.formats.model import Encoding

QUANTIZATION_VERSION = 2  # general.quantization_version (GGML_QNT_VERSION)

# general.file_type by the name of the type or mix; the missing numbers were removed from ggml
FILE_TYPES: Mapping[str, int] = MappingProxyType({
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12,
    "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ2_XXS": 19, "IQ2_XS": 20,
    "Q2_K_S": 21, "IQ3_XS": 22, "IQ3_XXS": 23, "IQ1_S": 24, "IQ4_NL": 25, "IQ3_S": 26, "IQ3_M": 27, "IQ2_S": 28,
    "IQ2_M": 29, "IQ4_XS": 30, "IQ1_M": 31, "BF16": 32, "TQ1_0": 36, "TQ2_0": 37, "MXFP4_MOE": 38, "NVFP4": 39,
    "Q1_0": 40, "Q2_0": 41,
})  # fmt: skip

CONVERTED = ("F32", "F16", "BF16", "Q8_0")  # types of files that llama.cpp's converter writes; all others are recipes

# "{}" stands for a number between dots
ALWAYS_F32 = frozenset({
    "blk.{}.ffn_gate_inp.weight",
    "blk.{}.ffn_gate_inp_shexp.weight",
    "position_embd.weight",
    "token_types.weight",
    "blk.{}.ssm_conv1d.weight",
    "blk.{}.ssm_conv1d_q.weight",
    "blk.{}.ssm_conv1d_k.weight",
    "blk.{}.ssm_conv1d_v.weight",
    "blk.{}.shortconv.conv.weight",
    "blk.{}.time_mix_first.weight",
    "blk.{}.time_mix_w1.weight",
    "blk.{}.time_mix_w2.weight",
    "blk.{}.time_mix_decay_w1.weight",
    "blk.{}.time_mix_decay_w2.weight",
    "blk.{}.time_mix_lerp_fused.weight",
    "posnet.{}.norm1.weight",
    "posnet.{}.norm2.weight",
    "v.position_embd.weight",
    "a.position_embd.weight",
    "blk.{}.altup_correct_coef.weight",
    "blk.{}.altup_predict_coef.weight",
    "blk.{}.indexer.proj.weight",
})  # fmt: skip

# convolutions of projector files, which are read as float16 or float32 only
_F16_OR_F32 = (".patch_embd.weight", ".patch_merger.weight")

# multiplied as it is by Gemma 3's projector graph, which cannot transpose other types
_F16_ALWAYS = "mm.input_projection.weight"

# too sensitive for ternary blocks
F16_IF_TERNARY = frozenset({
    "token_embd.weight",
    "per_layer_token_embd.weight",
    "output.weight",
    "blk.{}.altup_router.weight",
    "blk.{}.laurel_l.weight",
    "blk.{}.laurel_r.weight",
})  # fmt: skip

_SENSITIVE = tuple({".".join(pattern.split(".")[-2:]) for pattern in ALWAYS_F32 | F16_IF_TERNARY})  # how those names end
_QUANTISABLE = (".weight", ".lora_a", ".lora_b")

# experts that were trained in blocks (GPT-OSS) are moved as they are, whatever type is asked for
MXFP4 = ENCODINGS["MXFP4"]
_PACKED = ("MXFP4", "MXFP4_PLANES")
_EXPERTS = "_exps.weight"


def stored_type(name: str, shape: Sequence[int], wanted: Encoding, source: Encoding | None = None) -> Encoding:
    """The encoding of the tensor `name` (a GGUF name) of row-major `shape` in a file of type `wanted`.

    Vectors, norms, and what inference reads as floats stay F32; a row that `wanted` cannot divide falls back to F16.
    `source` is what the tensor is stored in before, None if it is made of several: packed experts stay packed.
    """
    if source is not None and source.name in _PACKED and name.endswith(_EXPERTS):
        return MXFP4
    if len(shape) <= 1 or name.endswith("_norm.weight") or not name.endswith(_QUANTISABLE):
        return F32
    if name == _F16_ALWAYS:
        return F16
    if name.endswith(_F16_OR_F32):
        return F16 if wanted == F16 else F32
    if not name.endswith(_SENSITIVE):  # nearly all, and there may be 90,000
        return wanted if shape[-1] % wanted.block == 0 else F16
    pattern = ".".join("{}" if part.isdecimal() else part for part in name.split("."))
    if pattern in ALWAYS_F32:
        return F32
    if wanted.name in ("TQ1_0", "TQ2_0") and pattern in F16_IF_TERNARY:
        return F16
    return wanted if shape[-1] % wanted.block == 0 else F16


def file_type(wanted: Encoding, stored: Iterable[Encoding]) -> int:
    """`general.file_type` of a file of type `wanted` whose tensors are `stored` as these."""
    mixed = wanted in (F32, F16, BF16) and MXFP4 in stored
    return FILE_TYPES["MXFP4_MOE" if mixed else wanted.name]
