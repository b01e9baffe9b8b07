"""Tokenizers between the files of Transformers and the `tokenizer.*` keys of GGUF, both ways."""
