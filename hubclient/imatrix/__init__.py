"""Importance matrices of our own making: what every weight of a model is multiplied by while the model reads a text.

What llama-imatrix measures in llama.cpp, measured in Transformers, block by block: a model need not fit into memory.
"""

from __future__ import annotations

from hubclient.imatrix.compute import compute, refuse_existing, save

__all__ = ["compute", "refuse_existing", "save"]
