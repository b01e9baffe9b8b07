"""The benchmark of quantising: how tensors are compared, and what is timed inside a process."""

from __future__ import annotations

from pathlib import Path

from benchmarks import inside
from benchmarks.checkpoints import ensure
from benchmarks.quantise import digests
from hubclient import Checkpoint


def quantised(folder: Path, out: Path, kind: str) -> dict[str, str]:
    Checkpoint.from_pretrained(folder).save_pretrained(out, format="gguf", type=kind)
    return digests(out)


def test_tensors_are_told_apart_by_type_and_bytes(tmp_path: Path) -> None:
    source = ensure("blocks", tmp_path)
    one, again, other = (
        quantised(source, tmp_path / f"{number}.gguf", kind) for number, kind in enumerate(("Q4_K_M", "Q4_K_M", "Q4_K_S"))
    )
    assert one == again and one.keys() == other.keys()
    unlike = {name for name in one if one[name] != other[name]}
    assert unlike and all("attn_v" in name or "ffn_down" in name for name in unlike)  # where the mixes differ
    with (tmp_path / "1.gguf").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    assert sum(digest != digests(tmp_path / "1.gguf")[name] for name, digest in one.items()) == 1


def test_several_types_are_timed_in_one_run(tmp_path: Path) -> None:
    source = str(ensure("blocks", tmp_path))
    assert inside.convert(source, str(tmp_path / "{type}.gguf"), "Q4_K_M,Q8_0", source) > 0
    assert sorted(path.name for path in tmp_path.glob("*.gguf*")) == ["Q4_K_M.gguf", "Q8_0.gguf"]


def test_packing_and_reading_are_timed_without_an_output(tmp_path: Path) -> None:
    source = str(ensure("blocks", tmp_path))
    assert inside.work(source, "Q4_K_M", source) > 0
    assert inside.work(source, "", source) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
