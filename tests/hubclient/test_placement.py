"""place: modules in the order they run, whole, on the devices they fit on, and nothing beyond a device's size.

Mixtures of experts give their experts away first. They are judged at published sizes, from headers alone, and where tiny ones
are at hand by what Transformers computes when it loads them as placed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from golden import FOLDER, Golden
from hypothesis import given
from hypothesis import strategies as st
from reference import DATA
from running import command, counting_reads

from hubclient import Checkpoint, place
from hubclient.errors import UsageError
from hubclient.formats.tokenizers import is_tokenizer_file
from hubclient.placement import PlacementPlan
from hubclient.testing.published import load

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
    assert shown.returncode == 0
    homes = {line.split()[0]: line.split()[-1] for line in shown.stdout.splitlines()}
    assert homes["transformer.wte"] == "cuda:0" and homes["transformer.h.1"] == "cpu"  # as the user calls them


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


# Mixtures of experts

GIB = 1 << 30
MIXTURES = ("mixtral-8x7b", "qwen3-30b-a3b", "deepseek-v3", "gpt-oss-20b", "jamba-v0.1")
SIZES = st.integers(0, 100 * GIB)
DEVICES = st.tuples(st.lists(SIZES, max_size=3), st.none() | SIZES).filter(lambda found: found[0] or found[1] is not None)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """Mixtures of experts at their true size: headers, and nothing behind them."""
    folder = tmp_path_factory.mktemp("published")
    words = DATA / "golden" / "checkpoints" / "llama"
    tokenizer = {path.name: path.read_bytes() for path in words.iterdir() if is_tokenizer_file(path.name)}
    sources = {name: load(DATA / "full_size" / f"{name}.json").write(folder / name, tokenizer) for name in MIXTURES}
    return {name: Checkpoint.from_pretrained(source) for name, source in sources.items()}


def on(plan: PlacementPlan, device: str | int) -> set[str]:
    return {name for name, home in plan.device_map.items() if home == device}


def experts(name: str) -> bool:
    return name.endswith(".experts")


@pytest.mark.parametrize("context", [None, 32768])
def test_mixtral_keeps_all_but_experts_on_a_gpu_of_24_gib(context: int | None, published: dict[str, Checkpoint]) -> None:
    plan = place(published["mixtral-8x7b"], {"cuda:0": 24 * GIB, "cpu": 96 * GIB}, context=context)
    assert plan.fits and set(plan.device_map.values()) == {0, "cpu"}
    assert on(plan, "cpu") and all(map(experts, on(plan, "cpu")))
    whole = [number for number in range(32) if f"model.layers.{number}" in plan.device_map]
    assert whole == list(range(len(whole))) and 0 < len(whole) < 32, "the experts of the last blocks go"
    caches = [module.cache for module in plan.modules if module.name.endswith((".self_attn", *(f"layers.{i}" for i in whole)))]
    assert caches == [(context or 0) * 2 * 8 * 128 * 2] * 32
    largest = max(module.weights for module in plan.modules if experts(module.name))
    assert plan.sizes["cuda:0"] - plan.used["cuda:0"] < largest, "no block's experts are away that have room"


def test_a_block_on_two_devices_is_listed_by_its_modules(published: dict[str, Checkpoint]) -> None:
    plan = place(published["qwen3-30b-a3b"], {"cuda:0": 24 * GIB, "cpu": 96 * GIB})
    inside = {name.removeprefix("model.layers.47."): home for name, home in plan.device_map.items() if ".47." in name}
    assert inside == {
        "input_layernorm": 0,
        "mlp.gate": 0,
        "post_attention_layernorm": 0,
        "self_attn": 0,
        "mlp.experts": "cpu",
    }
    assert sizes(plan)["model.layers.47.mlp.experts"] == 128 * 3 * 768 * 2048 * 2
    assert plan.device_map["model.layers.0"] == 0 == plan.device_map["lm_head"]


def test_experts_that_every_token_goes_through_stay(published: dict[str, Checkpoint]) -> None:
    plan = place(published["deepseek-v3"], {"cuda:0": 80 * GIB, "cpu": 4096 * GIB})
    assert plan.device_map["model.layers.60.mlp.shared_experts"] == 0 and on(plan, "cpu") and all(map(experts, on(plan, "cpu")))
    assert all(plan.device_map[f"model.layers.{number}"] == 0 for number in range(3)), "dense blocks have nothing to give"


def test_several_accelerators_share_the_blocks_that_stay_whole(published: dict[str, Checkpoint]) -> None:
    plan = place(published["mixtral-8x7b"], {"cuda:0": 24 * GIB, "cuda:1": 24 * GIB, "cpu": 96 * GIB})
    assert plan.device_map["model.layers.0"] == 0 and plan.device_map["model.layers.10"] == 1
    assert all(map(experts, on(plan, "cpu")))


def test_nothing_is_cut_where_accelerators_hold_all(published: dict[str, Checkpoint]) -> None:
    plan = place(published["mixtral-8x7b"], {f"cuda:{number}": 40 * GIB for number in range(3)})
    assert list(sizes(plan)) == [
        "model.embed_tokens",
        *(f"model.layers.{number}" for number in range(32)),
        "model.norm",
        "lm_head",
    ]
    assert plan.override_tensor == ()


def test_what_is_not_experts_has_the_memory_before_experts_have_it(published: dict[str, Checkpoint]) -> None:
    plan = place(published["mixtral-8x7b"], {"cuda:0": GIB, "cpu": 40 * GIB})
    assert not plan.fits and on(plan, "disk") and all(map(experts, on(plan, "disk")))
    alone = place(published["mixtral-8x7b"], {"cpu": 40 * GIB})
    assert alone.device_map["lm_head"] == "cpu" and all(map(experts, on(alone, "disk")))


@pytest.mark.parametrize("name", ["mixtral-8x7b", "jamba-v0.1"])
@given(devices=DEVICES, context=st.none() | st.integers(1, 100_000))
def test_mixtures_are_placed_once_within_the_devices(
    name: str, devices: tuple[list[int], int | None], context: int | None, published: dict[str, Checkpoint]
) -> None:
    named = {f"cuda:{at}": size for at, size in enumerate(devices[0])} | ({} if devices[1] is None else {"cpu": devices[1]})
    plan, whole = place(published[name], named, context=context), place(published[name], {"cpu": 1 << 50}, context=context)
    load: Counter[str] = Counter()
    for module in plan.modules:
        home = plan.device_map[module.name]
        load[f"cuda:{home}" if isinstance(home, int) else home] += module.weights + module.cache
    assert load == Counter(plan.used) and all(load[device] <= size for device, size in named.items())
    assert sum(sizes(plan).values()) == sum(sizes(whole).values())
    assert sum(module.cache for module in plan.modules) == sum(module.cache for module in whole.modules)
    names = sorted(f"{module}." for module in plan.device_map)
    assert not any(two.startswith(one) for one, two in pairwise(names))
    for block in {module.name for module in whole.modules} - plan.device_map.keys():
        assert len({home for module, home in plan.device_map.items() if module.startswith(f"{block}.")}) == 2


@pytest.mark.parametrize(("name", "size"), [("mixtral-8x7b", 24), ("gpt-oss-20b", 8), ("jamba-v0.1", 40)])
def test_overrides_name_the_tensors_that_llama_cpp_shall_leave_on_the_cpu(
    name: str, size: int, published: dict[str, Checkpoint], tmp_path: Path
) -> None:
    plan = place(published[name], {"cuda:0": size * GIB, "cpu": 200 * GIB})
    away = {int(module.split(".")[2]) for module in on(plan, "cpu")}
    (output,) = published[name].plan(tmp_path / "x.gguf", format="gguf", type="auto").outputs
    patterns = [value.removesuffix("=CPU") for value in plan.override_tensor]
    named = {step.name for step in output.steps if any(re.search(pattern, step.name) for pattern in patterns)}
    assert named == {step.name for step in output.steps if "_exps." in step.name and int(step.name.split(".")[1]) in away}
    assert away and all(value.endswith("=CPU") for value in plan.override_tensor)


def test_a_model_without_experts_keeps_its_blocks_whole(sources: dict[str, Path]) -> None:
    plan = place(sources["llama"], {"cuda:0": ENDS + 3 * BLOCK, "cpu": 1 << 30})
    assert list(plan.device_map) == list(sizes(place(sources["llama"], {"cpu": 1 << 30})))
    assert plan.device_map["lm_head"] == "cpu" and plan.override_tensor == ()


def test_the_command_shows_where_experts_go(published: dict[str, Checkpoint], tmp_path: Path) -> None:
    given = ("place", published["mixtral-8x7b"].opened.path, "--device", "cuda:0=24GiB", "--device", "cpu=96GiB")
    told = json.loads(command(*given, "--json", cwd=tmp_path).stdout)
    assert told["device_map"]["model.layers.31.self_attn"] == 0 and len(told["override_tensor"]) == 3
    shown = command(*given, cwd=tmp_path)
    assert re.search(r"layers\.31\.block_sparse_moe\.experts +[0-9.]+ GB +cpu", shown.stdout)


@pytest.mark.torch
@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.filterwarnings("ignore:.*do not match any submodules")  # names of the other releases of Transformers
def test_accelerate_takes_the_device_map(name: str, published: dict[str, Checkpoint]) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    modeling = pytest.importorskip("accelerate.utils.modeling")
    config: dict[str, Any] = dict(load(DATA / "full_size" / f"{name}.json").config)
    kind = getattr(transformers, config["architectures"][0])
    config.pop("quantization_config", None)
    with torch.device("meta"):
        model = kind(kind.config_class(**config))
    plan = place(published[name], {"cuda:0": 8 * GIB, "cpu": 2048 * GIB})
    modeling.check_device_map(model, dict(plan.device_map))
    known = {module for module, _ in model.named_modules()}
    assert sum(map(experts, on(plan, "cpu") & known)) == sum(experts(module.name) for module in plan.modules) > 0


@pytest.mark.torch
@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3", "olmoe", "jamba"])
@pytest.mark.filterwarnings("ignore:.*do not match any submodules")
def test_transformers_computes_the_same_as_placed(name: str, tmp_path: Path) -> None:
    if not (golden := Golden(name)).exists:
        pytest.skip("no golden of this name here")
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    stored = sum(ref.nbytes for ref in Checkpoint.from_pretrained(golden.checkpoint).opened.tensors.values())
    plan = place(golden.checkpoint, {"cpu": stored * 7 // 10})
    assert on(plan, "disk") and all(map(experts, on(plan, "disk")))
    kind = getattr(transformers, golden.config["architectures"][0])
    model = kind.from_pretrained(
        golden.checkpoint, dtype=torch.float32, device_map=dict(plan.device_map), offload_folder=tmp_path
    )
    away = {module for module, weight in model.named_parameters() if weight.device.type == "meta"}
    assert away == {weight for weight, _ in model.named_parameters() if weight.startswith(tuple(on(plan, "disk")))}
    with torch.no_grad():
        logits = model.eval()(torch.tensor([golden.ids])).logits[0, -1]
    assert torch.allclose(logits, torch.tensor(golden.logits), atol=1e-4)
