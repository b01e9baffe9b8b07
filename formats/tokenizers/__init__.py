"""Tokenizers between the files of Transformers and the `tokenizer.*` keys of GGUF, both ways.

    read_files   Hugging Face files -> Tokenizer          to_files    Tokenizer -> Hugging Face files
    from_gguf    GGUF keys -> Tokenizer                   to_gguf     Tokenizer -> GGUF keys
    residual     what GGUF keys cannot say of a Tokenizer, for `from_gguf` to put back

Where what is kept lies: `residual` for files that were converted here, `notes` for GGUF files of others; what is
recognised, and what llama.cpp treats alike: `pretokenizers`.
"""

from __future__ import annotations

from hubclient.formats.tokenizers.convert import from_gguf, residual, to_files
from hubclient.formats.tokenizers.gguf import to_gguf
from hubclient.formats.tokenizers.hf import is_tokenizer_file, read_files
from hubclient.formats.tokenizers.model import Tokenizer
from hubclient.formats.tokenizers.rows import check_fits

__all__ = ["Tokenizer", "check_fits", "from_gguf", "is_tokenizer_file", "read_files", "residual", "to_files", "to_gguf"]
