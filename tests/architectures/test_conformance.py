"""Every built-in declaration passes the conformance kit. New ones are picked up by themselves."""

from __future__ import annotations

from typing import ClassVar

from reference import DATA

from hubclient.plugins import Host
from hubclient.plugins.discovery import Scan
from hubclient.testing import ArchitectureSuite, byte_level, unigram, word_pieces


def with_classifier(*names: str) -> list[str]:
    return [f"{name}{head}" for name in names for head in ("", "-classifier")]


class TestBuiltIns(ArchitectureSuite):
    architectures = Host(third_party=lambda: Scan((), ()), environ={}).all_architectures()
    config: ClassVar = {  # where sizes have to fit each other in ways that no expression says
        "jamba": {"attn_layer_period": 2, "attn_layer_offset": 0, "expert_layer_period": 2},
        "gemma3_vision": {"mm_tokens_per_image": 4},
    }
    tokenizers: ClassVar = {  # by which look-alikes are told apart, or whose tokens a part of the model needs
        **dict.fromkeys(with_classifier("bert", "distilbert"), word_pieces()),
        **dict.fromkeys(with_classifier("xlm-roberta", "camembert"), unigram()),
        "mistral3": byte_level("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
    }
    published = sorted((DATA / "full_size").glob("*.json"))
