"""A checkpoint of which only the tokenizer is wanted: no weights, and no architecture that anybody here must know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubclient.architectures.language.declaration import Architecture, Placement
from hubclient.errors import DamagedInput, UnsupportedArchitecture
from hubclient.formats.jsonfile import read_object
from hubclient.formats.model import OpenedCheckpoint
from hubclient.model import Model
from hubclient.spokes import gguf_in, huggingface

if TYPE_CHECKING:
    from hubclient.plugins import Host

UNKNOWN = Architecture("unknown", (), "unknown", (), {}, Placement("", ()))


def read(opened: OpenedCheckpoint, host: Host) -> Model:
    """A model with a tokenizer and, where the architecture is known, the options that it stores tokenizers with."""
    if opened.format == "gguf":
        return Model(
            opened,
            UNKNOWN,
            "",
            {},
            {},
            {},
            pre=gguf_in.stated_pre(opened.metadata),
            load_tokenizer=lambda: gguf_in.load_tokenizer(opened, None),
        )
    raw = read_object(opened.sidecars["config.json"]) if "config.json" in opened.sidecars else {}
    architecture = UNKNOWN
    if raw:
        try:
            architecture = huggingface.recognise(raw, opened.sidecars["config.json"], host)[0]
        except (UnsupportedArchitecture, DamagedInput):
            architecture = UNKNOWN  # the tokenizer alone does not need it
    return Model(opened, architecture, "", raw, raw, {}, load_tokenizer=lambda: huggingface.read_tokenizer(opened.sidecars))
