"""What ships with hubclient, written as entry points are: names to ask for, and the module to import then.

One row per module, because several modules may claim one GGUF name. `tests/plugins/test_builtins.py` holds every row
against what its module declares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from hubclient.plugins.discovery import Announcement, claim_of

ARCHITECTURES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "hubclient.architectures.llama": (
        "hf.LlamaForCausalLM", "hf.LlamaModel", "hf.MistralForCausalLM", "hf.MistralModel", "gguf.llama",
        "mlx.llama", "mlx.mistral",
    ),
    "hubclient.architectures.qwen2": ("hf.Qwen2ForCausalLM", "hf.Qwen2Model", "gguf.qwen2", "mlx.qwen2"),
    "hubclient.architectures.qwen3": ("hf.Qwen3ForCausalLM", "hf.Qwen3Model", "gguf.qwen3", "mlx.qwen3"),
    "hubclient.architectures.gemma2": ("hf.Gemma2ForCausalLM", "hf.Gemma2Model", "gguf.gemma2"),
    "hubclient.architectures.gpt2": ("hf.GPT2LMHeadModel", "hf.GPT2Model", "gguf.gpt2", "mlx.gpt2"),
    "hubclient.architectures.bert": (
        "hf.BertModel", "hf.BertForMaskedLM", "hf.BertForPreTraining", "hf.BertForSequenceClassification", "gguf.bert",
    ),
    "hubclient.architectures.llava": ("hf.LlavaForConditionalGeneration", "gguf.llama", "mlx.llava", "mmproj.clip"),
    "hubclient.architectures.mistral3": ("hf.Mistral3ForConditionalGeneration", "gguf.mistral3", "mlx.mistral3", "mmproj.clip"),
    "hubclient.architectures.qwen2_vl": ("hf.Qwen2VLForConditionalGeneration", "gguf.qwen2vl", "mlx.qwen2_vl", "mmproj.clip"),
})  # fmt: skip

# In the order in which an unknown path is shown to them.
FORMATS: Mapping[str, str] = MappingProxyType({
    "gguf": "hubclient.formats.gguf",
    "mlx": "hubclient.formats.mlx",  # before safetensors, which would take its folders too
    "safetensors": "hubclient.formats.safetensors",
})  # fmt: skip

# The second member is the line in `hubclient --help`, which therefore imports no command.
COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType({
    "convert": ("hubclient.cli.convert", "Turn SOURCE (a folder or file) into another layout or encoding."),
    "inspect": ("hubclient.cli.inspect", "Show what SOURCE holds: architecture, sizes, encodings, metadata; from its headers."),
    "verify": ("hubclient.cli.verify", "Prove that OUT is the same model as SOURCE; exit code 1 if it is not."),
    "place": ("hubclient.cli.place", "Decide which module of SOURCE goes on which device, from headers alone."),
    "plugins": ("hubclient.cli.plugins", "List, check and switch plugins."),
})  # fmt: skip

ESSENTIAL = frozenset({"plugins"})
"""Built-ins that cannot be disabled: without them nothing could be enabled again."""


def builtins() -> Iterator[Announcement]:
    """The tables above in the shape in which third parties' entry points are found."""
    from hubclient import __version__

    def row(group: str, name: str, module: str, summary: str = "") -> Announcement:
        return Announcement(claim_of(group, name), module, "hubclient", __version__, builtin=True, summary=summary)

    for module, names in ARCHITECTURES.items():
        yield from (row("hubclient.architectures", name, module) for name in names)
    for name, module in FORMATS.items():
        yield row("hubclient.formats", name, module)
    for name, (module, summary) in COMMANDS.items():
        yield row("hubclient.commands", name, module, summary)
