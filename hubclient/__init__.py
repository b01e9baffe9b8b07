"""hubclient: holds every model checkpoint a person has and turns it into the layout the next program wants.

    from hubclient import Cache, Checkpoint, Hub, verify, place

    checkpoint = Checkpoint.from_pretrained("./all-MiniLM-L6-v2")
    checkpoint.save_pretrained("all-MiniLM-L6-v2-F16.gguf", format="gguf", type="f16")

Names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubclient.cache.retention.policy import Policy
    from hubclient.cache.store import Cache
    from hubclient.checkpoint import Checkpoint
    from hubclient.formats.gguf.imatrix import read_imatrix
    from hubclient.hub.client import Hub
    from hubclient.model import Quantization
    from hubclient.placement import place
    from hubclient.verification import verify

__version__ = "0.1.0"
__all__ = ["Cache", "Checkpoint", "Hub", "Policy", "Quantization", "__version__", "place", "read_imatrix", "verify"]

_HOMES = {
    "Cache": "hubclient.cache.store",
    "Checkpoint": "hubclient.checkpoint",
    "Hub": "hubclient.hub.client",
    "Policy": "hubclient.cache.retention.policy",
    "Quantization": "hubclient.model",
    "place": "hubclient.placement",
    "read_imatrix": "hubclient.formats.gguf.imatrix",
    "verify": "hubclient.verification",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
