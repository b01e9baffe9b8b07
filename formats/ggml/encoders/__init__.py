"""Encoders of ggml's block types, byte for byte what ggml's own functions write."""
