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
    "hubclient.architectures.gemma": ("hf.GemmaForCausalLM", "hf.GemmaModel", "gguf.gemma", "mlx.gemma"),
    "hubclient.architectures.gemma2": ("hf.Gemma2ForCausalLM", "hf.Gemma2Model", "gguf.gemma2", "mlx.gemma2"),
    "hubclient.architectures.gemma3": ("hf.Gemma3ForCausalLM", "gguf.gemma3", "mlx.gemma3_text"),
    "hubclient.architectures.jamba": ("hf.JambaForCausalLM", "hf.JambaModel", "gguf.jamba", "mlx.jamba"),
    "hubclient.architectures.mamba": ("hf.MambaForCausalLM", "hf.MambaModel", "gguf.mamba", "mlx.mamba"),
    "hubclient.architectures.mamba2": ("hf.Mamba2ForCausalLM", "hf.Mamba2Model", "gguf.mamba2", "mlx.mamba2"),
    "hubclient.architectures.phi3": ("hf.Phi3ForCausalLM", "hf.Phi3Model", "gguf.phi3", "mlx.phi3"),
    "hubclient.architectures.gpt2": ("hf.GPT2LMHeadModel", "hf.GPT2Model", "gguf.gpt2", "mlx.gpt2"),
    "hubclient.architectures.falcon": ("hf.FalconForCausalLM", "hf.FalconModel", "gguf.falcon"),
    "hubclient.architectures.bloom": ("hf.BloomForCausalLM", "hf.BloomModel", "gguf.bloom"),
    "hubclient.architectures.stablelm": ("hf.StableLmForCausalLM", "hf.StableLmModel", "gguf.stablelm", "mlx.stablelm"),
    "hubclient.architectures.olmo2": ("hf.Olmo2ForCausalLM", "hf.Olmo2Model", "gguf.olmo2", "mlx.olmo2"),
    "hubclient.architectures.starcoder2": ("hf.Starcoder2ForCausalLM", "hf.Starcoder2Model", "gguf.starcoder2", "mlx.starcoder2"),
    "hubclient.architectures.gpt_neox": ("hf.GPTNeoXForCausalLM", "hf.GPTNeoXModel", "gguf.gptneox", "mlx.gpt_neox"),
    "hubclient.architectures.bert": (
        "hf.BertModel", "hf.BertForMaskedLM", "hf.BertForPreTraining", "hf.BertForSequenceClassification", "gguf.bert",
    ),
    "hubclient.architectures.llava": ("hf.LlavaForConditionalGeneration", "gguf.llama", "mlx.llava", "mmproj.clip"),
    "hubclient.architectures.mistral3": ("hf.Mistral3ForConditionalGeneration", "gguf.mistral3", "mlx.mistral3", "mmproj.clip"),
    "hubclient.architectures.gemma3_vision": ("hf.Gemma3ForConditionalGeneration", "gguf.gemma3", "mlx.gemma3", "mmproj.clip"),
    "hubclient.architectures.qwen2_vl": ("hf.Qwen2VLForConditionalGeneration", "gguf.qwen2vl", "mlx.qwen2_vl", "mmproj.clip"),
    "hubclient.architectures.mixtral": ("hf.MixtralForCausalLM", "hf.MixtralModel", "gguf.llama", "mlx.mixtral"),
    "hubclient.architectures.qwen_moe": (
        "hf.Qwen2MoeForCausalLM", "hf.Qwen2MoeModel", "gguf.qwen2moe", "mlx.qwen2_moe",
        "hf.Qwen3MoeForCausalLM", "hf.Qwen3MoeModel", "gguf.qwen3moe", "mlx.qwen3_moe",
    ),
    "hubclient.architectures.deepseek_v2": ("hf.DeepseekV2ForCausalLM", "hf.DeepseekV2Model", "gguf.deepseek2", "mlx.deepseek_v2"),
    "hubclient.architectures.deepseek_v3": ("hf.DeepseekV3ForCausalLM", "hf.DeepseekV3Model", "gguf.deepseek2", "mlx.deepseek_v3"),
    "hubclient.architectures.olmoe": ("hf.OlmoeForCausalLM", "hf.OlmoeModel", "gguf.olmoe", "mlx.olmoe"),
    "hubclient.architectures.gpt_oss": ("hf.GptOssForCausalLM", "hf.GptOssModel", "gguf.gpt-oss", "mlx.gpt_oss"),
    "hubclient.architectures.distilbert": (
        "hf.DistilBertModel", "hf.DistilBertForMaskedLM", "hf.DistilBertForSequenceClassification", "gguf.bert",
    ),
    "hubclient.architectures.roberta": (
        "hf.RobertaModel", "hf.RobertaForMaskedLM", "hf.RobertaForSequenceClassification", "gguf.bert",
    ),
    "hubclient.architectures.xlm_roberta": (
        "hf.XLMRobertaModel", "hf.XLMRobertaForMaskedLM", "hf.XLMRobertaForSequenceClassification", "gguf.bert",
    ),
    "hubclient.architectures.camembert": (
        "hf.CamembertModel", "hf.CamembertForMaskedLM", "hf.CamembertForSequenceClassification", "gguf.bert",
    ),
    "hubclient.architectures.modernbert": (
        "hf.ModernBertModel", "hf.ModernBertForMaskedLM", "hf.ModernBertForSequenceClassification", "gguf.modern-bert",
    ),
    "hubclient.architectures.t5": (
        "hf.T5ForConditionalGeneration", "hf.T5Model", "hf.T5WithLMHeadModel", "gguf.t5",
    ),
    "hubclient.architectures.mt5": ("hf.MT5ForConditionalGeneration", "hf.MT5Model", "gguf.t5"),
    "hubclient.architectures.umt5": ("hf.UMT5ForConditionalGeneration", "hf.UMT5Model", "gguf.t5"),
    "hubclient.architectures.t5_encoder": (
        "hf.T5EncoderModel", "hf.MT5EncoderModel", "hf.UMT5EncoderModel", "gguf.t5encoder",
    ),
})  # fmt: skip

# In the order in which an unknown path is shown to them.
FORMATS: Mapping[str, str] = MappingProxyType({
    "gguf": "hubclient.formats.gguf",
    "mlx": "hubclient.formats.mlx",  # before safetensors, which would take its folders too
    "safetensors": "hubclient.formats.safetensors",
})  # fmt: skip

# The second member is the line in `hubclient --help`, which therefore imports no command.
COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType({
    "convert": ("hubclient.cli.convert", "Turn SOURCE (a folder, a file, or org/name[@revision][:file] of the Hub) into another layout or encoding."),
    "inspect": ("hubclient.cli.inspect", "Show what SOURCE holds: architecture, sizes, encodings, metadata; from its headers."),
    "verify": ("hubclient.cli.verify", "Prove that OUT is the same model as SOURCE; exit code 1 if it is not."),
    "place": ("hubclient.cli.place", "Decide which module of SOURCE goes on which device, from headers alone."),
    "pull": ("hubclient.cli.pull", "Bring a repository into the cache: what is not here yet, checked by its digest."),
    "lock": ("hubclient.cli.lock", "Note which commits repositories are at now, with their files' digests, for `hubclient sync`."),
    "sync": ("hubclient.cli.sync", "Fetch exactly what a lock file (hubclient.lock) names, as far as it is not here."),
    "cache": ("hubclient.cli.cache", "Look after the models on this machine: what is here, is it intact, what may go."),
    "push": ("hubclient.cli.push", "Send PATH (a file or a folder) to REPO on the Hub, in one commit; REPO is made if it is new."),
    "search": ("hubclient.cli.search", "Find models on the Hub whose names hold the words of TEXT."),
    "info": ("hubclient.cli.search", "Show what the Hub says of REPO, and what of it is in the cache here; offline, what is here."),
    "login": ("hubclient.cli.account", "Store a token of the Hub's, where hf, transformers and others find it too; the Hub is asked whose it is."),
    "logout": ("hubclient.cli.account", "Forget the stored token that is in use; other stored ones stay."),
    "whoami": ("hubclient.cli.account", "Show whose token is in use, what it may do, and where it comes from."),
    "imatrix": ("hubclient.cli.imatrix", "Measure how much each column of SOURCE's weights matters while it reads a text, as llama-imatrix does."),
    "recipes": ("hubclient.cli.recipes", "List the recipes of quantisation, and show what each one does."),
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
