"""Carrying out plans: the same bytes however the work is cut and whoever does it, and one read for several outputs."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import checkpoints
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import Here, contents, counting_reads, leftovers

from hubclient import Checkpoint, errors, tiles
from hubclient.checkpoint import run

TYPES = ("f32", "f16", "bf16", "q8_0")
MAKERS = {"llama": checkpoints.llama, "gpt2": checkpoints.gpt2, "bert": checkpoints.bert}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {name: make(folder / name) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def expected(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], bytes]:
    """Each output made alone, by one thread."""
    folder = tmp_path_factory.mktemp("expected")
    found = {}
    for name, source in sources.items():
        for kind in TYPES:
            (path,) = Checkpoint.from_pretrained(source).save_pretrained(
                folder / f"{name}-{kind}.gguf", format="gguf", type=kind, jobs=1
            )
            found[name, kind] = path.read_bytes()
    return found


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("jobs", [1, 2, 3, 8])
def test_any_number_of_jobs_gives_the_same_bytes(
    name: str, jobs: int, sources: dict[str, Path], expected: dict[tuple[str, str], bytes], tmp_path: Path
) -> None:
    paths = Checkpoint.from_pretrained(sources[name]).save_pretrained(
        tmp_path / "{type}.gguf", format="gguf", type=TYPES, jobs=jobs
    )
    assert [path.read_bytes() for path in paths] == [expected[name, kind] for kind in TYPES]


@pytest.mark.parametrize("name", MAKERS)
def test_tiles_of_single_rows_give_the_same_bytes(
    name: str, sources: dict[str, Path], expected: dict[tuple[str, str], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "_SMALLEST", 1)
    plan = Checkpoint.from_pretrained(sources[name]).plan(tmp_path / "{type}.gguf", format="gguf", type=TYPES)
    assert all(tile.stop - tile.start == 1 for group in tiles.groups(plan.outputs) for tile in tiles.tiles(group, 1, 1))
    paths = run(plan, max_memory=1, executor=Here()).paths
    assert [path.read_bytes() for path in paths] == [expected[name, kind] for kind in TYPES]


@given(max_memory=st.integers(1, 36 << 20), smallest=st.integers(1, 1 << 14), jobs=st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_any_budget_gives_the_same_bytes(
    max_memory: int,
    smallest: int,
    jobs: int,
    sources: dict[str, Path],
    expected: dict[tuple[str, str], bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "_SMALLEST", smallest)
        for name in ("llama", "gpt2"):
            folder = tmp_path_factory.mktemp("out")
            plan = Checkpoint.from_pretrained(sources[name]).plan(folder / "{type}.gguf", format="gguf", type=("q8_0", "f32"))
            paths = run(plan, max_memory=max_memory, jobs=jobs).paths
            assert [path.read_bytes() for path in paths] == [expected[name, "q8_0"], expected[name, "f32"]]


@pytest.mark.parametrize(
    "executor",
    [lambda: ThreadPoolExecutor(3), lambda: ProcessPoolExecutor(2, multiprocessing.get_context("spawn")), Here],
    ids=["threads", "processes", "this thread"],
)
def test_any_executor_gives_the_same_bytes(
    executor: Callable[[], Executor], sources: dict[str, Path], expected: dict[tuple[str, str], bytes], tmp_path: Path
) -> None:
    with executor() as taken:
        for name in ("llama", "gpt2"):
            paths = Checkpoint.from_pretrained(sources[name]).save_pretrained(
                tmp_path / (name + "-{type}.gguf"), format="gguf", type=("q8_0", "f16"), executor=taken
            )
            assert [path.read_bytes() for path in paths] == [expected[name, "q8_0"], expected[name, "f16"]]


def test_an_executor_that_keeps_running_sees_a_source_that_was_replaced(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        results = []
        for seed in (1, 2):
            source = checkpoints.llama(tmp_path / "new", seed=seed)
            (path,) = Checkpoint.from_pretrained(source).save_pretrained(
                tmp_path / f"{seed}.gguf", format="gguf", type="f16", executor=executor
            )
            (alone,) = Checkpoint.from_pretrained(source).save_pretrained(
                tmp_path / f"{seed}-alone.gguf", format="gguf", type="f16"
            )
            assert path.read_bytes()[-1000:] == alone.read_bytes()[-1000:]
            results.append(path.read_bytes())
            for item in source.iterdir():
                item.rename(item.with_name(item.name + ".old"))
    assert results[0] != results[1]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files through /proc")
def test_no_file_stays_open(sources: dict[str, Path], tmp_path: Path) -> None:
    run(Checkpoint.from_pretrained(sources["llama"]).plan(tmp_path / "first.gguf", format="gguf"), executor=Here())
    before = len(os.listdir("/proc/self/fd"))
    run(Checkpoint.from_pretrained(sources["llama"]).plan(tmp_path / "1.gguf", format="gguf"), executor=Here())
    run(Checkpoint.from_pretrained(sources["llama"]).plan(tmp_path / "2.gguf", format="gguf"))
    with pytest.raises(errors.OutputExists):
        run(Checkpoint.from_pretrained(sources["llama"]).plan(tmp_path / "2.gguf", format="gguf"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_several_outputs_read_the_source_once(sources: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = Checkpoint.from_pretrained(sources["llama"])
    weights = sum(ref.nbytes for ref in checkpoint.opened.tensors.values())
    with counting_reads() as sizes:
        checkpoint.save_pretrained(tmp_path / "{type}.gguf", format="gguf", type=TYPES)
    assert sum(sizes) == weights


def test_a_sharded_source_gives_the_bytes_of_a_single_file(
    sources: dict[str, Path], expected: dict[tuple[str, str], bytes], tmp_path: Path
) -> None:
    whole = Checkpoint.from_pretrained(sources["llama"])
    values = {name: ref.file.read_bytes()[ref.offset : ref.offset + ref.nbytes] for name, ref in whole.opened.tensors.items()}
    folder = checkpoints.llama(tmp_path / "llama", shards=3)
    sharded = Checkpoint.from_pretrained(folder)
    assert {
        name: ref.file.read_bytes()[ref.offset : ref.offset + ref.nbytes] for name, ref in sharded.opened.tensors.items()
    } == values
    sharded.save_pretrained(tmp_path / "out.gguf", format="gguf", type="q8_0")
    data = Checkpoint.from_pretrained(tmp_path / "out.gguf").opened.tensors
    (tmp_path / "single.gguf").write_bytes(expected["llama", "q8_0"])
    alone = Checkpoint.from_pretrained(tmp_path / "single.gguf").opened.tensors
    assert data.keys() == alone.keys()
    for name, ref in data.items():
        other = alone[name]
        assert ref.file.read_bytes()[ref.offset :][: ref.nbytes] == other.file.read_bytes()[other.offset :][: other.nbytes]


def test_progress_ends_with_all_bytes_and_never_goes_back(sources: dict[str, Path], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    Checkpoint.from_pretrained(sources["llama"]).save_pretrained(
        tmp_path / "{type}.gguf", format="gguf", type=("f16", "q8_0"), progress=lambda done, total: told.append((done, total))
    )
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len({total for _, total in told}) == 1


def test_a_worker_process_that_dies_is_the_environments_fault(sources: dict[str, Path], tmp_path: Path) -> None:
    class Broken(Here):
        def submit(self, fn: Callable[..., object], /, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            from concurrent.futures.process import BrokenProcessPool

            raise BrokenProcessPool("a child process terminated abruptly")

    with pytest.raises(errors.EnvironmentFault, match="worker process"):
        Checkpoint.from_pretrained(sources["llama"]).save_pretrained(tmp_path / "out.gguf", format="gguf", executor=Broken())
    assert not (tmp_path / "out.gguf").exists()


def test_a_fault_in_one_tile_stops_the_run_and_leaves_it_to_be_resumed(
    sources: dict[str, Path], expected: dict[tuple[str, str], bytes], tmp_path: Path
) -> None:
    plan = Checkpoint.from_pretrained(sources["llama"]).plan(tmp_path / "out.gguf", format="gguf", type="f16")

    def stop(done: int, total: int) -> None:
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        run(plan, progress=stop)
    assert not (tmp_path / "out.gguf").exists()
    assert leftovers(tmp_path) == ["out.gguf.partial", "out.gguf.partial.journal"]
    run(plan)
    assert contents(tmp_path / "out.gguf") == {"": expected["llama", "f16"]}
    assert leftovers(tmp_path) == []


def test_errors_keep_their_fields_on_the_way_from_another_process() -> None:
    made = [
        errors.NotEnoughSpace("the disk is full", Path("/x"), hint="tidy up"),
        errors.SourceChanged("changed", Path("/x")),
        errors.DamagedInput("is broken", file="/x", tensor="a", offset=3),
        errors.UnmappedTensor("unknown", ["a"]),
        errors.Lossy("loses", ["a"]),
    ]
    for error in made:
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)
