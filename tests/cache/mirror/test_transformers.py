"""transformers loads from the hub by HF_ENDPOINT alone, and again without it from what it kept."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
from transformers import AutoConfig, AutoTokenizer
print(AutoConfig.from_pretrained("org/name").hidden_size, AutoTokenizer.from_pretrained("org/name")("hello")["input_ids"])
"""
CONFIG = b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_attention_heads": 4}'


def tokenizer() -> bytes:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"hello": 0, "<unk>": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return words.to_str().encode()


@pytest.mark.torch
@pytest.mark.slow
def test_config_and_tokenizer(hub, tmp_path):
    settings = b'{"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}'
    hub.repo("org/name").commit({"config.json": CONFIG, "tokenizer.json": tokenizer(), "tokenizer_config.json": settings})
    for extra in ({"HF_ENDPOINT": hub.endpoint}, {"HF_HUB_OFFLINE": "1"}):
        environment = {**os.environ, "HF_HOME": str(tmp_path), **extra}
        done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["64", "[0]"]
    assert hub.asked("/resolve/")
