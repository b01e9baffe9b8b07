"""`hubclient imatrix`: what llama-imatrix measures, measured in Transformers; compared with its files, and with llama.cpp itself.

The comparison with llama.cpp runs every causal golden through both: tensors, counts, and sums of every column within 1 %.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from golden import FOLDER, Golden, Workshop, foreign, goldens
from reference import DATA
from running import Failing

from hubclient import Checkpoint
from hubclient.cli import main
from hubclient.formats.gguf.imatrix import ImportanceMatrix, check_fits, read_imatrix
from hubclient.imatrix import compute

REFERENCES = DATA / "quant" / "imatrix"
TEXT = REFERENCES / "text.txt"
CONTEXT = 64
torch_needed = pytest.mark.torch

# llama.cpp loads no file of a tiny model of this one; a token that two experts have nearly the same claim to may go to the
# other one in these: attention with sinks and YaRN, long chains of small floating-point differences.
REFUSED = ("deepseek_v2_lite",)
NEARLY = {"gpt_oss_mxfp4": 4, "jamba": 4, "deepseek_v3": 4, "deepseek_v3_fp8": 8}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("imatrix"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of about a thousand tokens for a tokenizer of bytes."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT.read_text()[:1000] + "\n")
    return path


def the_same(one: ImportanceMatrix, two: ImportanceMatrix, within: float = 1e-6) -> None:
    """Equal names and counts, and sums that agree but for rounding."""
    assert one.entries.keys() == two.entries.keys()
    for name, entry in one.entries.items():
        np.testing.assert_array_equal(entry.counts, two.entries[name].counts, err_msg=name)
        np.testing.assert_allclose(entry.sums, two.entries[name].sums, rtol=within, err_msg=name)


# Against llama-imatrix


@torch_needed
@pytest.mark.parametrize("name", ["llama_h256", "mixtral"])
def test_values_are_those_of_llama_imatrix(name: str):
    source = foreign(name)
    if source is None:
        pytest.skip("this model is not at hand")
    found, expected = compute(source, TEXT, context=CONTEXT), read_imatrix(REFERENCES / f"{name}.imatrix.gguf")
    the_same(found, expected, within=0.01)
    assert (found.chunks, found.chunk_size) == (expected.chunks, expected.chunk_size)


@torch_needed
@pytest.mark.llama
@pytest.mark.parametrize("golden", [one for one in goldens("causal") if one.name not in REFUSED], ids=lambda golden: golden.name)
def test_every_model_is_measured_as_in_llama_cpp(golden: Golden, workshop: Workshop):
    from libimatrix import collect

    from hubclient.imatrix.text import chunks

    source = Checkpoint.from_pretrained(golden.checkpoint)
    found = compute(source, TEXT, context=CONTEXT, chunk_limit=36, process_output=True)
    ids = chunks(source.model, TEXT, CONTEXT, 36).tolist()
    expected = collect(workshop.gguf(golden, "auto", pre=golden.pre), ids, output=True)
    assert found.entries.keys() == expected.sums.keys()
    flips = NEARLY.get(golden.name, 0)
    for name, entry in found.entries.items():
        routed = len(entry.counts) > 1
        assert np.abs(entry.counts - expected.counts[name]).max() <= (flips if routed else 0), name
        sums = expected.sums[name].reshape(entry.sums.shape)
        off = ~np.isclose(entry.sums, sums, rtol=0.01, atol=1e-7)
        assert off.mean() <= (0.15 if flips else 0), name  # a token more or less among few


@torch_needed
@pytest.mark.llama
@pytest.mark.parametrize("name", ["llama_h256-Q4_K_M", "llama_h256-imatrix-IQ2_XXS"])
def test_quantised_sources_are_measured_as_in_llama_cpp(name: str):
    """Whose numbers llama.cpp rounds to eight bits before it multiplies them by such weights."""
    from libimatrix import collect

    from hubclient.imatrix.text import chunks

    source = foreign(name)
    assert source is not None
    checkpoint = Checkpoint.from_pretrained(source)
    found = compute(checkpoint, TEXT, context=CONTEXT, chunk_limit=36)
    expected = collect(source, chunks(checkpoint.model, TEXT, CONTEXT, 36).tolist())
    for tensor, entry in found.entries.items():
        np.testing.assert_allclose(entry.sums, expected.sums[tensor].reshape(entry.sums.shape), rtol=0.01, err_msg=tensor)


# What is measured


@torch_needed
def test_a_folder_and_its_gguf_are_measured_alike(source: Path, text: Path, tmp_path: Path):
    (gguf,) = Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "a.gguf", format="gguf", type="auto")
    one, two = compute(source, text, context=32), compute(gguf, text, context=32)
    the_same(one, two)
    assert check_fits(one, {name: ref.shape for name, ref in Checkpoint.from_pretrained(gguf).opened.tensors.items()}) == ()


@torch_needed
def test_the_output_is_measured_only_when_asked_for(source: Path, text: Path):
    without, with_it = compute(source, text, context=32), compute(source, text, context=32, process_output=True)
    assert with_it.entries.keys() - without.entries.keys() == {"output.weight"}


@torch_needed
def test_rounds_that_fit_into_little_memory_give_the_same(source: Path, text: Path):
    done: list[tuple[int, int]] = []
    one = compute(source, text, context=128)
    two = compute(source, text, context=128, max_memory=1, progress=lambda now, of: done.append((now, of)))
    the_same(one, two)
    assert done[-1][0] == done[-1][1] > 0 and done == sorted(done)


@torch_needed
def test_one_block_at_a_time_has_its_weights(source: Path, text: Path, monkeypatch: pytest.MonkeyPatch):
    from hubclient.imatrix.skeleton import Skeleton

    filled, fill = [], Skeleton.fill

    def watched(self: Skeleton, path: str, reader: Any) -> Any:
        assert all(parameter.is_meta for parameter in self.module.parameters())
        filled.append(path)
        return fill(self, path, reader)

    monkeypatch.setattr(Skeleton, "fill", watched)
    compute(source, text, context=32)
    assert filled == ["model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm"]


@torch_needed
def test_chunks_can_be_limited(source: Path, text: Path):
    matrix = compute(source, text, context=32, chunk_limit=3)
    assert matrix.chunks == 3 and {tuple(entry.counts) for entry in matrix.entries.values()} == {(96,)}


@pytest.fixture(scope="module", params=["MixtralForCausalLM", "Qwen3MoeForCausalLM", "OlmoeForCausalLM"])
def routed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny mixture of experts by Transformers, with the tokenizer of the tiny Llama."""
    import torch
    import transformers

    folder = checkpoints.llama(tmp_path_factory.mktemp("routed") / request.param)
    kind = getattr(transformers, request.param)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4, "num_experts": 4}
    config = kind.config_class(**sizes, **heads, num_experts_per_tok=2, vocab_size=272, norm_topk_prob=True, dtype="float32")
    torch.manual_seed(5)
    kind(config).save_pretrained(folder)
    return folder


@torch_needed
def test_every_token_goes_through_two_experts(routed: Path, text: Path):
    """Which see what the router sees: their sums and counts add up to its own, twice."""
    matrix = compute(routed, text, context=32)
    for block in range(2):
        router = matrix.entries[f"blk.{block}.ffn_gate_inp.weight"]
        for part in ("gate", "up", "down"):
            experts = matrix.entries[f"blk.{block}.ffn_{part}_exps.weight"]
            assert experts.sums.shape[0] == 4 and experts.counts.sum() == 2 * router.counts[0]
            if part != "down":
                np.testing.assert_allclose(experts.sums.sum(0), 2 * router.sums[0], rtol=1e-5)


# The command


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["hubclient", "imatrix", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0


@torch_needed
def test_the_command_writes_what_llama_quantize_reads(source: Path, text: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, source, "--text", text, "--context", "32", "--json")
    told = json.loads(capsys.readouterr().out)
    matrix = read_imatrix(tmp_path / "llama.imatrix.gguf")
    assert told["written"] == str(tmp_path / "llama.imatrix.gguf")
    assert (told["entries"], told["chunks"], told["chunk_size"]) == (len(matrix.entries), matrix.chunks, 32)
    assert told["datasets"] == list(matrix.datasets) == [str(text)] and told["unused_experts"] == {}
    the_same(matrix, compute(source, text, context=32))
    assert [path.name for path in tmp_path.iterdir()] == ["llama.imatrix.gguf"]


@torch_needed
def test_an_output_that_is_there_stays_unless_forced(source: Path, text: Path, tmp_path: Path, failing: Failing, monkeypatch):
    out = tmp_path / "a.gguf"
    out.write_text("mine")
    code, said = failing("imatrix", source, "--text", text, "--context", "32", "--output", out)
    assert code == 5 and "already there" in said and out.read_text() == "mine"
    run(monkeypatch, source, "--text", text, "--context", "32", "--output", out, "--force")
    assert len(read_imatrix(out).entries) == 14


def refused(failing: Failing, tmp_path: Path, code: int, *arguments: str | Path) -> str:
    """One sentence, the code, and nothing written."""
    out = tmp_path / "out.gguf"
    found, said = failing("imatrix", *arguments, "--output", out)
    assert found == code and said.startswith("hubclient: ") and said.count("\n") <= 2, said
    assert not out.exists() and "fault of ours" not in said
    return said


@torch_needed
def test_what_cannot_be_measured_is_refused_in_a_sentence(source: Path, text: Path, tmp_path: Path, failing: Failing):
    short, binary = tmp_path / "short.txt", tmp_path / "binary"
    short.write_text("Too short.")
    binary.write_bytes(b"\xff\xfe" * 500)
    assert "two chunks of 64" in refused(failing, tmp_path, 2, source, "--text", short, "--context", "64")
    assert "no text in UTF-8: byte 0" in refused(failing, tmp_path, 4, source, "--text", binary)
    assert "does not exist" in refused(failing, tmp_path, 5, source, "--text", tmp_path / "none")
    assert "reads 128 tokens at most" in refused(failing, tmp_path, 2, source, "--text", text, "--context", "200")
    assert "no device" in refused(failing, tmp_path, 2, source, "--text", text, "--device", "cuda:77")
    assert "no device" in refused(failing, tmp_path, 2, source, "--text", text, "--device", "nonsense")
    encoder = FOLDER / "checkpoints" / "bert"
    assert "BertModel" in refused(failing, tmp_path, 3, encoder, "--text", text, "--context", "8")


@torch_needed
def test_weights_that_are_not_finite_are_refused(source: Path, text: Path, tmp_path: Path, failing: Failing):
    import torch
    from safetensors.torch import load_file, save_file

    folder = checkpoints.llama(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "blk.0.ffn_down.weight" in refused(failing, tmp_path, 4, folder, "--text", text, "--context", "32")


@pytest.mark.parametrize("library", ["torch", "transformers", "accelerate"])
def test_without_a_library_there_is_a_sentence_with_the_command(
    library: str, source: Path, text: Path, tmp_path, failing, monkeypatch
):
    for name in [name for name in sys.modules if name == library or name.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    said = refused(failing, tmp_path, 5, source, "--text", text)
    assert library in said and "pip install" in said


# The text


def test_chunks_begin_as_llama_cpp_begins_them(source: Path, text: Path):
    from hubclient.imatrix.text import chunks

    model = Checkpoint.from_pretrained(source).model
    plain = chunks(model, text, 32)
    assert plain.shape[0] > 2 and plain.shape[1] == 32 and plain.dtype == np.int64
    golden = Checkpoint.from_pretrained(FOLDER / "checkpoints" / "gemma2").model  # which begins with <bos>
    marked = chunks(golden, text, 32)
    bos = golden.raw_config["bos_token_id"]
    assert set(marked[:, 0]) == {bos} and bos not in marked[:, 1:]


def test_special_tokens_in_a_text_are_text(source: Path, tmp_path: Path):
    from hubclient.imatrix.text import chunks

    path = tmp_path / "special.txt"
    path.write_text("<|im_start|></s><s><bos><eos>" * 40)
    for name in ("llama", "gemma2", "qwen2"):
        model = Checkpoint.from_pretrained(FOLDER / "checkpoints" / name).model
        special = {item["id"] for item in model.tokenizer.document["added_tokens"] if item["special"]}  # type: ignore[union-attr,index]
        assert special and not special & set(chunks(model, path, 16)[:, 1:].flat)


# Walking in step


class Steps:
    """A stand-in for a model's modules, and for loading them; notes what happens."""

    def __init__(self, names: str) -> None:
        self.noted: list[str] = []
        self.modules = {name: Step(name, self) for name in names}

    @contextmanager
    def serve(self, name: str) -> Iterator[Any]:
        self.noted.append(f"+{name}")
        try:
            yield lambda: self.noted.append("step")
        finally:
            self.noted.append(f"-{name}")


class Step:
    """A module that notes who uses it, and may use another."""

    def __init__(self, name: str, steps: Steps) -> None:
        self.name, self.steps = name, steps
        self.inner: Step | None = None

    def forward(self, number: int) -> int:
        assert threading.current_thread() is threading.main_thread()
        self.steps.noted.append(f"{self.name}{number}")
        return self.inner.forward(number) if self.inner else number + 10


def test_each_module_serves_all_runs_before_the_next_is_loaded():
    from hubclient.imatrix.walk import walk

    results: list[int] = []
    steps = Steps("ab")
    a, b = steps.modules.values()

    def call(number: int) -> None:
        results.append(b.forward(a.forward(number)))

    walk([partial(call, number) for number in (1, 2)], steps.modules, steps.serve)
    assert steps.noted == ["+a", "a1", "step", "a2", "step", "-a", "+b", "b11", "step", "b12", "step", "-b"]
    assert results == [21, 22] and "forward" not in vars(a)


def test_a_module_within_another_is_loaded_for_it():
    from hubclient.imatrix.walk import walk

    steps = Steps("ab")
    a, b = steps.modules.values()
    a.inner = b
    walk([lambda: a.forward(1)], steps.modules, steps.serve)
    assert steps.noted == ["+a", "a1", "+b", "b1", "-b", "step", "-a"]


@pytest.mark.parametrize("where", ["run", "module"])
def test_a_failure_ends_all_runs(where: str):
    from hubclient.imatrix.walk import walk

    steps, before = Steps("a"), threading.active_count()
    (a,) = steps.modules.values()

    def fail(number: int) -> None:
        a.forward(number if where == "run" else "x")  # type: ignore[arg-type]
        raise KeyError(number)

    with pytest.raises(KeyError if where == "run" else TypeError):
        walk([lambda: a.forward(1), lambda: fail(2), lambda: a.forward(3)], steps.modules, steps.serve)
    assert threading.active_count() == before and steps.noted[-1] == "-a"
