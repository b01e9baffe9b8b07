"""place: modules in the order they run, whole, on the devices they fit on, and nothing beyond a device's size."""

from __future__ import annotations

import json
from pathlib import Path

import checkpoints
import pytest
from golden import FOLDER
from hypothesis import given
from hypothesis import strategies as st
from running import command, counting_reads

from hubclient import Checkpoint, place
from hubclient.errors import UsageError
from hubclient.placement import PlacementPlan

BLOCK = 2 * (2 * 64 + 3 * 96 * 64 + 2 * 64 * 64 + 2 * 32 * 64)  # bytes of a block of the tiny Llama in bf16
ENDS = 2 * 272 * 64


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {
        "llama": checkpoints.llama(folder / "llama", sizes={"num_hidden_layers": 12}),
        "tied": checkpoints.llama(folder / "tied", sizes={"tie_word_embeddings": True}),
        "gpt2": checkpoints.gpt2(folder / "gpt2"),
        "bert": checkpoints.bert(folder / "bert"),
    }


def sizes(plan: PlacementPlan) -> dict[str, int]:
    return {module.name: module.weights for module in plan.modules}


def test_modules_come_in_the_order_they_run_with_their_sizes(sources: dict[str, Path]) -> None:
    plan = place(sources["llama"], {"cpu": 1 << 40})
    assert list(sizes(plan)) == ["model.embed_tokens", *(f"model.layers.{i}" for i in range(12)), "model.norm", "lm_head"]
    assert sizes(plan) == {
        "model.embed_tokens": ENDS,
        **{f"model.layers.{i}": BLOCK for i in range(12)},
        "model.norm": 128,
        "lm_head": ENDS,
    }
    assert set(plan.device_map.values()) == {"cpu"} and plan.fits


@pytest.mark.parametrize("name", ["llama", "tied", "gpt2", "bert"])
def test_every_stored_byte_is_placed(name: str, sources: dict[str, Path]) -> None:
    stored = sum(ref.nbytes for ref in Checkpoint.from_pretrained(sources[name]).opened.tensors.values())
    plan = place(sources[name], {"cpu": 1 << 40})
    assert sum(sizes(plan).values()) == stored == sum(plan.used.values())


@pytest.mark.parametrize("name", ["llama", "tied", "gpt2", "bert"])
def test_a_gguf_is_placed_as_its_source_is(name: str, sources: dict[str, Path], tmp_path: Path) -> None:
    kind = "bf16" if name in ("llama", "tied") else "f32"
    (path,) = Checkpoint.from_pretrained(sources[name]).save_pretrained(tmp_path / "x.gguf", format="gguf", type=kind)
    one, other = place(sources[name], {"cuda:0": 100_000, "cpu": 1 << 40}), place(path, {"cuda:0": 200_000, "cpu": 1 << 40})
    assert list(sizes(one)) == list(sizes(other))


@given(devices=st.lists(st.integers(0, 600_000), min_size=1, max_size=5), context=st.none() | st.integers(1, 2000))
def test_no_device_gets_more_than_it_holds(devices: list[int], context: int | None, sources: dict[str, Path]) -> None:
    named = {f"cuda:{at}": size for at, size in enumerate(devices)}
    plan = place(sources["llama"], named, context=context)
    load: dict[str | int, int] = {}
    for module in plan.modules:
        home = plan.device_map[module.name]
        load[home] = load.get(home, 0) + module.weights + module.cache
    for at, size in enumerate(devices):
        assert load.get(at, 0) <= size and plan.used[f"cuda:{at}"] == load.get(at, 0)
    assert plan.fits == ("disk" not in plan.device_map.values())
    order = [*range(len(devices)), "disk"]
    homes = [order.index(plan.device_map[module.name]) for module in plan.modules]
    assert homes == sorted(homes), "what runs later lies on the same device or a later one"


def test_what_fits_nowhere_goes_to_the_disk_and_is_said(sources: dict[str, Path], tmp_path: Path) -> None:
    plan = place(sources["llama"], {"cuda:0": ENDS + 2 * BLOCK})
    assert not plan.fits and plan.device_map["model.layers.1"] == 0 and plan.device_map["model.layers.2"] == "disk"
    done = command("place", sources["llama"], "--device", "cuda:0=100KB", cwd=tmp_path)
    assert done.returncode == 0 and "not everything fits" in done.stderr


def test_a_tied_head_lies_where_the_embedding_lies(sources: dict[str, Path]) -> None:
    plan = place(sources["tied"], {"cuda:0": ENDS, "cuda:1": 1 << 30})
    assert plan.device_map["lm_head"] == plan.device_map["model.embed_tokens"] == 0
    assert sizes(plan)["lm_head"] == 0


def test_a_context_brings_its_cache_along(sources: dict[str, Path]) -> None:
    plan = place(sources["llama"], {"cpu": 1 << 40}, context=1000)
    assert {module.cache for module in plan.modules if "layers" in module.name} == {
        1000 * 2 * 2 * 16 * 2
    }  # k, v; 2 heads of 16; 2 bytes
    assert all(module.cache == 0 for module in plan.modules if "layers" not in module.name)
    assert plan.used["cpu"] == sum(sizes(plan).values()) + 12 * 128_000


def test_an_encoder_keeps_no_cache(sources: dict[str, Path]) -> None:
    assert all(module.cache == 0 for module in place(sources["bert"], {"cpu": 1 << 40}, context=1000).modules)


def test_a_quantised_model_counts_as_it_is_stored(sources: dict[str, Path], tmp_path: Path) -> None:
    (path,) = Checkpoint.from_pretrained(sources["llama"]).save_pretrained(tmp_path / "x.gguf", format="gguf", type="q8_0")
    plan = place(path, {"cpu": 1 << 40})
    assert sizes(plan)["lm_head"] == 272 * 2 * 34
    assert sum(sizes(plan).values()) == sum(ref.nbytes for ref in Checkpoint.from_pretrained(path).opened.tensors.values())


def test_placing_reads_headers_alone(sources: dict[str, Path]) -> None:
    with counting_reads() as reads:
        place(sources["llama"], {"cpu": 1 << 40}, context=100)
    assert reads == []


def test_accelerators_are_numbers_and_other_devices_keep_their_names(sources: dict[str, Path]) -> None:
    plan = place(sources["llama"], {"cuda:1": ENDS, "mps": BLOCK, "cpu": 1 << 30})
    assert [plan.device_map[name] for name in ("model.embed_tokens", "model.layers.0", "model.layers.1")] == [1, "mps", "cpu"]


def test_without_devices_there_is_nothing_to_do(sources: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="no device"):
        place(sources["llama"], {})


def test_the_command_gives_accelerates_device_map(sources: dict[str, Path], tmp_path: Path) -> None:
    done = command(
        "place", sources["gpt2"], "--device", "cuda:0=100KiB", "--device", "cpu=1GB", "--context", "32", "--json", cwd=tmp_path
    )
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["fits"] and told["context"] == 32
    assert told["device_map"]["transformer.wte"] == 0 and told["device_map"]["transformer.h.1"] == "cpu"
    assert told["devices"]["cuda:0"]["size"] == 102_400 >= told["devices"]["cuda:0"]["used"]
    shown = command("place", sources["gpt2"], "--device", "cuda:0=100KiB", "--device", "cpu=1GB", cwd=tmp_path)
    assert shown.returncode == 0 and "transformer.h.1" in shown.stdout


@pytest.mark.parametrize("name", ["jamba", "mamba", "gemma3"])
def test_what_a_block_keeps_depends_on_its_kind(name: str) -> None:
    if not (FOLDER / "checkpoints" / name).is_dir():
        pytest.skip("no golden of this kind here")
    blocks = [m.cache for m in place(FOLDER / "checkpoints" / name, {"cpu": 1 << 40}, context=100).modules if "layers." in m.name]
    keys_and_values = 100 * 2 * 2 * 16 * 2  # tokens, keys and values, heads, their size, bytes
    windowed = 8 * 2 * 2 * 32 * 2
    expected = {
        "jamba": [4 * 128 * (16 + 4), keys_and_values, *[4 * 128 * (16 + 4)] * 2],
        "mamba": [4 * 128 * (16 + 4)] * 2,
        "gemma3": [*[windowed] * 5, 100 * 2 * 2 * 32 * 2, windowed],
    }
    assert blocks == expected[name]
