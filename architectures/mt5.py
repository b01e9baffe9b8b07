"""mT5: T5 v1.1 under another name, so files are read as T5. Source: Transformers `modeling_mt5`."""

from dataclasses import replace

from hubclient.architectures.t5 import DEFAULTS, IMPLIED, READERS, T5

MT5 = replace(
    T5, name="mt5", hf=("MT5ForConditionalGeneration", "MT5Model"), model_type="mt5",
    defaults={
        **DEFAULTS, "vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
    },
    implied=IMPLIED, assumed=READERS, look_alike="t5",
)  # fmt: skip

ARCHITECTURES = (MT5,)
