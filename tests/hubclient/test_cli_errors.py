"""How commands fail: the exit code of the error tree, one sentence on stderr, nothing on stdout, no traceback."""

from __future__ import annotations

import json
import re
from pathlib import Path

import checkpoints
import pytest
from running import Failing, command

from hubclient import errors


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.llama(tmp_path_factory.mktemp("source") / "tiny-llama")


def every(kind: type[errors.HubclientError]) -> list[type[errors.HubclientError]]:
    """The classes of the tree, without those that a module has for itself."""
    own = (child for child in kind.__subclasses__() if child.__module__ == errors.__name__)
    return [kind, *(found for child in own for found in every(child))]


def test_the_tree_at_the_top_of_errors_is_the_tree() -> None:
    drawn = re.findall(r"[├└]── (\w+)(?: \(\w+\))? *(\d*)", str(errors.__doc__))
    classes = {kind.__name__: kind for kind in every(errors.HubclientError)}
    assert {name for name, _ in drawn} == classes.keys() - {"HubclientError"}
    for name, code in drawn:
        assert not code or classes[name].exit_code == int(code)


@pytest.mark.parametrize("kind", [kind for kind in every(errors.HubclientError) if kind is not errors.HubclientError])
def test_each_error_ends_with_its_code_its_sentence_and_its_hint(
    kind: type[errors.HubclientError], failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hubclient.checkpoint

    def fail(*_: object, **__: object) -> None:
        raise kind("what happened", hint="what to do")

    monkeypatch.setattr(hubclient.checkpoint.Checkpoint, "from_pretrained", fail)
    assert failing("convert", "x", "--to", "gguf") == (kind.exit_code, "hubclient: what happened\n  what to do\n")
    assert kind.exit_code in (1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RuntimeError("oops\nagain"), 70, "a fault of ours: RuntimeError: oops\\nagain"),
        (RecursionError("too deep"), 70, "a fault of ours"),
        (MemoryError(), 5, "out of memory"),
        (PermissionError(13, "Permission denied", "/x"), 5, "/x: Permission denied"),
        (OSError("odd"), 5, "odd"),
    ],
)
def test_other_exceptions_are_one_line_too(
    error: Exception, code: int, said: str, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hubclient.checkpoint

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(hubclient.checkpoint.Checkpoint, "from_pretrained", fail)
    found, err = failing("convert", "x", "--to", "gguf")
    assert found == code and said in err.splitlines()[0]


def test_debug_shows_where(tmp_path: Path) -> None:
    done = command("--debug", "inspect", "nowhere", cwd=tmp_path)
    assert "Traceback" in done.stderr and "SourceMissing" in done.stderr and done.returncode not in (0, 5)


# Usage: 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert",),
        ("convert", "SOURCE"),
        ("convert", "SOURCE", "--to", "gguf", "--jobs", "0"),
        ("convert", "SOURCE", "--to", "gguf", "--jobs", "many"),
        ("convert", "SOURCE", "--to", "gguf", "--max-memory", "lots"),
        ("convert", "SOURCE", "--to", "gguf", "--max-memory", "-1"),
        ("convert", "SOURCE", "--to", "gguf", "--max-memory", "nan"),
        ("convert", "SOURCE", "--to", "gguf", "--max-memory", "1k"),
        ("convert", "SOURCE", "--to", "gguf", "--max-memory", "47M"),
        ("convert", "SOURCE", "--to", "gguf", "--max-memory", "1e999"),
        ("convert", "SOURCE", "--to", "gguf", "--only", "weights"),
        ("convert", "SOURCE", "--to", "gguf", "--no-such-option"),
        ("convert", "SOURCE", "out.gguf", "--to", "gguf", "--type", "f16", "--type", "q8_0"),
        ("convert", "SOURCE", "{typ}.gguf", "--to", "gguf"),
        ("convert", "SOURCE", "SOURCE/model.safetensors", "--to", "gguf"),
        ("convert", "SOURCE", "out.gguf", "--to", "gguf", "--force", "--report", "SOURCE/tokenizer_config.json"),
        ("convert", "SOURCE", "out.gguf", "--to", "gguf", "--force", "--report", "SOURCE/config.json"),
        ("convert", "SOURCE", "SOURCE", "--to", "safetensors", "--force"),
        ("convert", "SOURCE", "SOURCE", "--to", "gguf"),
        ("verify", "SOURCE"),
        ("place", "SOURCE"),
        ("place", "SOURCE", "--device", "cuda:0"),
        ("place", "SOURCE", "--device", "cuda:0=big"),
        ("place", "SOURCE", "--device", "cpu=1G", "--device", "cpu=2G"),
        ("place", "SOURCE", "--device", "cpu=1G", "--context", "0"),
        ("no-such-command",),
    ],
)
def test_a_request_that_makes_no_sense_is_wrong_usage(
    arguments: tuple[str, ...], failing: Failing, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, err = failing(*(argument.replace("SOURCE", str(source)) for argument in arguments))
    assert code == 2 and err
    assert list(tmp_path.iterdir()) == []


def test_several_types_without_a_place_for_the_name_say_what_to_write(failing: Failing, source: Path, tmp_path: Path) -> None:
    code, err = failing("convert", source, tmp_path / "out.gguf", "--to", "gguf", "--type", "f16", "--type", "q8_0")
    assert code == 2 and "{type}" in err


# Unsupported: 3


@pytest.mark.parametrize(
    "option",
    [
        ("--to", "gguf", "--type", "q9"),
        ("--to", "onnx"),
        ("--to", "safetensors", "--type", "q8_0"),
        ("--to", "safetensors", "--type", "u8"),
    ],
)
def test_unknown_types_and_formats_are_unsupported(
    option: tuple[str, ...], failing: Failing, source: Path, tmp_path: Path
) -> None:
    code, err = failing("convert", source, tmp_path / "out", *option)
    assert code == 3 and option[-1] in err.lower()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 100])
def test_a_file_of_no_known_format_is_unsupported(content: bytes, failing: Failing, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    code, err = failing("inspect", tmp_path / "a.bin")
    assert code == 3 and "a.bin" in err


def test_an_empty_folder_is_unsupported(failing: Failing, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments in (("inspect",), ("convert", "--to", "gguf"), ("convert", "--to", "gguf", "--only", "tokenizer")):
        code, err = failing(*arguments, tmp_path / "empty")
        assert code == 3 and "empty" in err


# The environment: 5


@pytest.mark.parametrize(
    "arguments", [("inspect",), ("convert", "--to", "gguf"), ("place", "--device", "cpu=1G"), ("verify", "--against", ".")]
)
def test_a_source_that_is_not_there_is_said(arguments: tuple[str, ...], failing: Failing, tmp_path: Path) -> None:
    code, err = failing(*arguments, tmp_path / "nowhere")
    assert code == 5 and "nowhere: there is no such file or folder" in err


def test_a_dangling_link_is_said(failing: Failing, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    code, err = failing("inspect", tmp_path / "link")
    assert code == 5 and "link" in err


def test_a_name_too_long_for_the_system_is_said(failing: Failing, tmp_path: Path, source: Path) -> None:
    assert failing("inspect", "x" * 5000)[0] == 5
    code, err = failing("convert", source, tmp_path / ("x" * 300), "--to", "gguf")
    assert code == 5 and len(err.splitlines()) == 1


# One line, whatever a file holds


def test_control_characters_from_a_file_do_not_reach_the_terminal(failing: Failing, tmp_path: Path) -> None:
    name = "evil\x1b[2J\r\n\u202e"
    folder = checkpoints.llama(tmp_path / "llama", tensors={name: (4,)})
    code, err = failing("convert", folder, tmp_path / "out.gguf", "--to", "gguf")
    assert code == 3 and "evil" in err
    assert all(char.isprintable() for line in err.splitlines() for char in line)


def test_inspect_shows_control_characters_harmlessly(tmp_path: Path) -> None:
    from rawsafetensors import entry, put

    put(
        tmp_path / "a.safetensors",
        {"__metadata__": {"k\x1b[2J": "v\x1b]0;x\x07"}, "t\x1b[2J[bold]": entry("U8", [1], 0, 1)},
        b"\0",
    )
    done = command("inspect", "a.safetensors", "--tensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout and "\x07" not in done.stdout and "[bold]" in done.stdout


def test_json_stays_json_whatever_a_file_holds(tmp_path: Path) -> None:
    import struct

    from hostile_gguf import F32, F64, LITTLE, put

    pairs = [
        LITTLE.text("general.architecture", b"ll\xff\xfea"),
        LITTLE.pair("a", F32, struct.pack("<f", float("nan"))),
        LITTLE.pair("b", F64, struct.pack("<d", float("-inf"))),
        LITTLE.array("c", F32, 2, struct.pack("<2f", float("inf"), 1.0)),
    ]
    put(tmp_path / "a.gguf", LITTLE.file(pairs))
    for name in ("inspect", "inspect --tensors"):
        done = command(*name.split(), "a.gguf", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert (
            told["metadata"]["a"] == "NaN" and told["metadata"]["b"] == "-Infinity" and told["metadata"]["c"] == ["Infinity", 1.0]
        )
    assert command("inspect", "a.gguf", cwd=tmp_path).returncode == 0
