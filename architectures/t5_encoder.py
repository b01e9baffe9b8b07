"""The encoders of T5, mT5 and UMT5 alone, for embeddings and diffusion models. Source: Transformers `modeling_t5`."""

from dataclasses import replace

from hubclient.architectures import Layout, Placement
from hubclient.architectures.mt5 import MT5
from hubclient.architectures.t5 import COPIES, DEFAULTS, ENCODER, FIRST_BLOCKS, IMPLIED, READERS, SIZES, T5
from hubclient.architectures.umt5 import ENCODER_POSITIONS, SECOND, UMT5

T5_ENCODER = replace(
    T5, name="t5-encoder", hf=("T5EncoderModel",), repeats={}, config=SIZES, defaults=DEFAULTS,
    layouts={"gguf": Layout.of(ENCODER, FIRST_BLOCKS[0], name="t5encoder", drop=COPIES)},
    implied=IMPLIED, assumed=READERS,
    placement=Placement(
        "encoder.block.{i}", ("shared", "encoder.embed_tokens"), ("encoder.final_layer_norm",),
        {"encoder.embed_tokens": "shared"},
    ),
)  # fmt: skip
MT5_ENCODER = replace(
    T5_ENCODER, name="mt5-encoder", hf=("MT5EncoderModel",), model_type="mt5", defaults=MT5.defaults, look_alike="t5-encoder",
)  # fmt: skip
UMT5_ENCODER = replace(
    T5_ENCODER, name="umt5-encoder", hf=("UMT5EncoderModel",), model_type="umt5", defaults=UMT5.defaults,
    layouts={"gguf": Layout.of(ENCODER, ENCODER_POSITIONS, name="t5encoder", drop=COPIES)},
    when=SECOND,
)  # fmt: skip

ARCHITECTURES = (T5_ENCODER, MT5_ENCODER, UMT5_ENCODER)
