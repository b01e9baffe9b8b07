"""UMT5: T5 v1.1 with a table of relative positions in every block. Source: Transformers `modeling_umt5`."""

from dataclasses import replace

from hubclient.architectures import Layout, block, present
from hubclient.architectures.mt5 import MT5
from hubclient.architectures.t5 import COPIES, DECODER, ENCODER, POSITIONS, READERS

ENCODER_POSITIONS = block("encoder.block.{i}", "enc.blk.{i}", POSITIONS)
DECODER_POSITIONS = block("decoder.block.{j}", "dec.blk.{j}", POSITIONS)
SECOND = present("encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight")

UMT5 = replace(
    MT5, name="umt5",
    hf=("UMT5ForConditionalGeneration", "UMT5Model"),
    model_type="umt5",
    layouts={"gguf": Layout.of(ENCODER, DECODER, ENCODER_POSITIONS, DECODER_POSITIONS, name="t5", drop=COPIES)},
    assumed={**READERS, "tie_word_embeddings": (False,)},  # a tied model scales what goes into its head
    when=SECOND,
    look_alike=None,
)  # fmt: skip

ARCHITECTURES = (UMT5,)
