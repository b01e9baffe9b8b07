"""`hubclient convert` as programs call it: names, plans, JSON, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from running import command, contents, environment

from hubclient import Checkpoint
from hubclient.cli import main


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.llama(tmp_path_factory.mktemp("source") / "tiny-llama")


@pytest.fixture(scope="module")
def lossy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file that GGUF cannot carry."""
    folder = checkpoints.llama(tmp_path_factory.mktemp("lossy") / "llama")
    (folder / "README.md").write_bytes(b"\xff\xfe not text")
    return folder


class Result:
    def __init__(self, code: Any, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


class Cli:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str | Path) -> Result:
        self.monkeypatch.setattr(sys, "argv", ["hubclient", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = self.capsys.readouterr()
        return Result(caught.value.code, captured.out, captured.err)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capsys)


def test_several_types_make_several_files(cli: Cli, source: Path, tmp_path: Path) -> None:
    done = cli("convert", source, tmp_path / "{name}-{type}.gguf", "--to", "gguf", "--type", "f16", "--type", "Q8_0")
    assert done.code == 0 and done.err == ""
    assert sorted(contents(tmp_path)) == ["tiny-llama-F16.gguf", "tiny-llama-Q8_0.gguf"]
    assert [line.split()[0] for line in done.out.splitlines()] == [
        str(tmp_path / f"tiny-llama-{kind}.gguf") for kind in ("F16", "Q8_0")
    ]


def test_there_and_back_as_commands(source: Path, tmp_path: Path) -> None:
    assert command("convert", source, "there.gguf", "--to", "gguf", cwd=tmp_path).returncode == 0
    assert command("convert", "there.gguf", "back", "--to", "safetensors", cwd=tmp_path).returncode == 0
    done = command("verify", "back", "--against", source, "--json", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["ok"], done.stdout
    assert "model.safetensors" in contents(tmp_path / "back")


def test_without_a_name_it_goes_into_the_working_folder(source: Path, tmp_path: Path) -> None:
    assert command("convert", source, "--to", "gguf", cwd=tmp_path).returncode == 0
    assert list(contents(tmp_path)) == ["tiny-llama-BF16.gguf"]


def test_json_is_one_object_and_nothing_else(source: Path, tmp_path: Path) -> None:
    done = command("convert", source, "{type}.gguf", "--to", "gguf", "--type", "f16", "--type", "q8_0", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout.splitlines()) == 1
    assert told["written"] == [str(tmp_path / "F16.gguf"), str(tmp_path / "Q8_0.gguf")]
    assert [(output["path"], output["type"], output["bytes"]) for output in told["outputs"]] == [
        (str(tmp_path / f"{kind}.gguf"), kind, (tmp_path / f"{kind}.gguf").stat().st_size) for kind in ("F16", "Q8_0")
    ]
    assert told["losses"] == []


def test_losses_are_in_the_json_and_on_stderr(cli: Cli, lossy: Path, tmp_path: Path) -> None:
    told = json.loads(cli("convert", lossy, tmp_path / "a.gguf", "--to", "gguf", "--json").out)
    assert told["losses"] == told["outputs"][0]["losses"] and "README.md" in told["losses"][0]
    done = cli("convert", lossy, tmp_path / "b.gguf", "--to", "gguf")
    assert done.code == 0 and "not carried over: README.md" in done.err


def test_strict_refuses_losses_and_writes_nothing(cli: Cli, lossy: Path, source: Path, tmp_path: Path) -> None:
    done = cli("convert", lossy, tmp_path / "out.gguf", "--to", "gguf", "--strict")
    assert done.code == 1 and "README.md" in done.err and done.out == ""
    assert list(tmp_path.iterdir()) == []
    assert cli("convert", source, tmp_path / "out.gguf", "--to", "gguf", "--strict").code == 0


def test_a_dry_run_writes_nothing_and_tells_the_plan(cli: Cli, source: Path, tmp_path: Path) -> None:
    done = cli(
        "convert", source, tmp_path / "{type}.gguf", "--to", "gguf", "--type", "f16", "--type", "q8_0", "--dry-run", "--json"
    )
    assert done.code == 0 and done.err == "" and list(tmp_path.iterdir()) == []
    plan = Checkpoint.from_pretrained(source).plan(tmp_path / "{type}.gguf", format="gguf", type=["f16", "q8_0"])
    assert json.loads(done.out) == json.loads(json.dumps(plan.as_json()))
    table = cli("convert", source, tmp_path / "out.gguf", "--to", "gguf", "--type", "f16", "--dry-run")
    assert table.code == 0 and list(tmp_path.iterdir()) == []
    line = next(line for line in table.out.splitlines() if "blk.1.attn_k.weight" in line)
    assert {"32x64", "F16", "model.layers.1.self_attn.k_proj.weight", "(BF16)", "rope", "rounded"} <= set(
        line.replace("│", " ").split()
    )


def test_a_strict_dry_run_says_that_something_would_be_lost(cli: Cli, lossy: Path, source: Path, tmp_path: Path) -> None:
    done = cli("convert", lossy, tmp_path / "out.gguf", "--to", "gguf", "--dry-run", "--strict", "--json")
    assert done.code == 1 and json.loads(done.out)["outputs"][0]["losses"]
    assert cli("convert", source, tmp_path / "out.gguf", "--to", "gguf", "--dry-run", "--strict").code == 0


def test_an_existing_output_needs_force(cli: Cli, source: Path, tmp_path: Path) -> None:
    arguments = ("convert", source, tmp_path / "out.gguf", "--to", "gguf")
    (tmp_path / "out.gguf").write_bytes(b"old")
    done = cli(*arguments)
    assert done.code == 5 and "is already there" in done.err and "--force" in done.err
    assert contents(tmp_path) == {"out.gguf": b"old"}
    assert cli(*arguments, "--force").code == 0


def test_only_the_tokenizer_or_the_config(cli: Cli, source: Path, tmp_path: Path) -> None:
    assert cli("convert", source, tmp_path / "vocab.gguf", "--to", "gguf", "--only", "tokenizer").code == 0
    assert cli("convert", tmp_path / "vocab.gguf", tmp_path / "tokenizer", "--to", "safetensors", "--only", "tokenizer").code == 0
    assert "tokenizer.json" in contents(tmp_path / "tokenizer") and "config.json" not in contents(tmp_path / "tokenizer")
    assert cli("convert", source, tmp_path / "config", "--to", "safetensors", "--only", "config").code == 0
    assert list(contents(tmp_path / "config")) == ["config.json"]
    assert json.loads((tmp_path / "config" / "config.json").read_text()) == json.loads((source / "config.json").read_text())


def test_jobs_and_memory_do_not_change_the_bytes(cli: Cli, source: Path, tmp_path: Path) -> None:
    assert cli("convert", source, tmp_path / "a.gguf", "--to", "gguf", "--jobs", "1", "--max-memory", "48M").code == 0
    assert cli("convert", source, tmp_path / "b.gguf", "--to", "gguf", "--jobs", "4", "--max-memory", "2GiB").code == 0
    one, two = (tmp_path / name for name in ("a.gguf", "b.gguf"))
    assert one.read_bytes() == two.read_bytes()


def test_shards_of_a_size(cli: Cli, source: Path, tmp_path: Path) -> None:
    assert cli("convert", source, tmp_path / "st", "--to", "safetensors", "--max-shard-size", "64KB").code == 0
    assert "model.safetensors.index.json" in contents(tmp_path / "st")
    assert cli("convert", source, tmp_path / "split.gguf", "--to", "gguf", "--max-shard-size", "64KB").code == 0
    parts = sorted(tmp_path.glob("split-*.gguf"))
    assert len(parts) > 1 and not (tmp_path / "split.gguf").exists()
    assert cli("verify", parts[0], "--against", tmp_path / "st").code == 0


def test_names_that_look_like_markup_are_shown_as_they_are(cli: Cli, source: Path, tmp_path: Path) -> None:
    done = cli("convert", source, tmp_path / "[bold]x[/red] :smile:.gguf", "--to", "gguf", "--dry-run")
    assert done.code == 0 and "[bold]x[/red] :smile:.gguf" in done.out


def test_a_terminal_that_knows_only_ascii_gets_the_same_json(source: Path, tmp_path: Path) -> None:
    run = [
        sys.executable,
        "-m",
        "hubclient",
        "convert",
        str(source),
        str(tmp_path / "dreißig-{type}.gguf"),
        "--to",
        "gguf",
        "--json",
    ]
    done = subprocess.run(run, env=environment(PYTHONIOENCODING="ascii", PYTHONUTF8="0"), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("ascii"))["written"] == [str(tmp_path / "dreißig-BF16.gguf")]


def test_a_reader_that_has_seen_enough_hears_nothing_more(source: Path, tmp_path: Path) -> None:
    inspect = subprocess.Popen(
        [sys.executable, "-m", "hubclient", "inspect", str(source), "--json", "--tensors"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert inspect.stdout is not None and inspect.stderr is not None
    inspect.stdout.close()
    assert inspect.stderr.read() == "" and inspect.wait(60) == 1
    inspect.stderr.close()
