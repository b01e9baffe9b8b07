"""GGUF, the container of llama.cpp: reader, writer, and what only GGUF knows."""
