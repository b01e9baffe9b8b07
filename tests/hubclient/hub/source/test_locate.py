"""How a source is named: what is there on this machine comes first, then repositories of the Hub in all their spellings."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubclient.cache.asked import Asked
from hubclient.cache.layout import RepoId
from hubclient.errors import HubclientError, SourceMissing, UsageError
from hubclient.hub.source.locate import parse


def asked(name: str, revision: str = "main", file: str | None = None) -> Asked:
    return Asked(RepoId(name), revision, file)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", asked("org/name")),
        ("org/name@v1.0", asked("org/name", "v1.0")),
        ("org/name@refs/pr/3", asked("org/name", "refs/pr/3")),
        ("org/name:sub/model.gguf", asked("org/name", file="sub/model.gguf")),
        ("org/name@v1:model.gguf", asked("org/name", "v1", "model.gguf")),
        ("org/name:Q4_K_M", asked("org/name", file="Q4_K_M")),
        ("models/org/name", asked("org/name")),
        ("models/gpt2", asked("gpt2")),
        ("hf://org/name", asked("org/name")),
        ("hf://models/org/name@dev/sub/model.gguf", asked("org/name", "dev", "sub/model.gguf")),
        ("hf://org/name/sub/model.gguf", asked("org/name", file="sub/model.gguf")),
        ("hf://org/name@refs/pr/3/model.gguf", asked("org/name", "refs/pr/3", "model.gguf")),
        ("hf://org/name@feature%2Fx/model.gguf", asked("org/name", "feature/x", "model.gguf")),
        ("hf://org/name@v1:model.gguf", asked("org/name", "v1", "model.gguf")),
        ("hf://gpt2", asked("gpt2")),
        ("hf://gpt2@v1/model.safetensors", asked("gpt2", "v1", "model.safetensors")),
        ("https://huggingface.co/org/name", asked("org/name")),
        ("https://huggingface.co/org/name/", asked("org/name")),
        ("https://hf.co/org/name/tree/v1", asked("org/name", "v1")),
        ("https://huggingface.co/org/name/tree/main/sub", asked("org/name", "main", "sub")),
        ("https://huggingface.co/org/name/blob/main/a%20b.gguf", asked("org/name", "main", "a b.gguf")),
        ("https://huggingface.co/org/name/resolve/refs%2Fpr%2F3/m.gguf?download=true", asked("org/name", "refs/pr/3", "m.gguf")),
        ("https://huggingface.co/org/name/tree/refs/pr/3", asked("org/name", "refs/pr/3")),
        ("https://huggingface.co/gpt2/blob/main/model.safetensors", asked("gpt2", "main", "model.safetensors")),
    ],
)
def test_a_repository_is_named_in_many_ways(text: str, expected: Asked):
    found = parse(text)
    assert isinstance(found, Asked)
    assert (found.repo, found.revision, found.file) == (expected.repo, expected.revision, expected.file)


@pytest.mark.parametrize("text", ["org/name", "gpt2", "org/name@v1:a.gguf", "hf:", "models/gpt2", "C:model"])
def test_what_is_there_always_comes_first(text: str):
    path = Path(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert parse(text) == path


def test_a_link_to_nothing_is_there_too():
    Path("org").mkdir()
    Path("org/name").symlink_to("nowhere")
    assert parse("org/name") == Path("org/name")


def test_a_path_object_is_never_a_repository():
    assert parse(Path("org/name")) == Path("org/name")


@pytest.mark.parametrize(
    "text",
    ["", ".", "./org/name", "../name", "/org/name", "~/name", "org/name/", "org//name", "model.gguf", "org/model.gguf",
     "a/b/c", "a/b/c@v1", r"C:\models\name", "C:/models/name", r"org\name", "out/model.safetensors", "gpt2", "gpt2@main"],
)  # fmt: skip
def test_what_looks_like_a_path_is_missed_as_one(text: str):
    if text == ".":
        assert parse(text) == Path()
        return
    with pytest.raises(SourceMissing, match="there is no such file or folder"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("gpt2", "hf://gpt2"),
        ("org/model.gguf", "hf://org/model.gguf"),
        ("org/name/sub/model.gguf", "org/name:sub/model.gguf"),
    ],
)
def test_a_near_miss_is_told_how_to_name_a_repository(text: str, hint: str):
    with pytest.raises(SourceMissing) as caught:
        parse(text)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    "text",
    [
        "org/name@", "org/name:", "org/name@:x", "-org/name", "org/na me", "org/name@a b\n", "org/name@../x", "org/name:../x",
        "org/name:/etc/passwd", "datasets/org/name", "spaces/org/name", "org/name.git", "hf://", "hf://datasets/org/name",
        "hf://org/name@", "hf://org/name@/x", "hf://org/name/a:b", "hf://org/name/../x", "hf://buckets/org/name",
        "https://example.com/org/name", "https://[", "https://huggingface.co", "https://huggingface.co/org/name/discussions/3",
        "https://huggingface.co/datasets/org/name", "https://huggingface.co.evil.example/org/name", "https://huggingface.co/org/name/blob/main/..%2Fx",
        "org/" + "n" * 200,
    ],
)  # fmt: skip
def test_what_names_nothing_is_refused_in_a_sentence(text: str):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_url_is_that_of_the_endpoint_in_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example:8080/hf")
    found = parse("http://mirror.example:8080/hf/org/name/blob/v1/m.gguf")
    assert isinstance(found, Asked) and str(found) == "org/name@v1:m.gguf"
    for text in ("https://huggingface.co/org/name", "http://mirror.example/hf/org/name", "http://mirror.example:8080/org/name"):
        with pytest.raises(UsageError, match="is not the Hub in use"):
            parse(text)


def test_nothing_makes_the_parser_stumble():
    pieces = (
        "",
        "a",
        "/",
        "@",
        ":",
        "hf://",
        "https://huggingface.co/",
        ".",
        "..",
        "\0",
        "%2F",
        "refs/pr/1",
        "é",
        "\\",
        "datasets",
    )
    for one in pieces:
        for two in pieces:
            for three in pieces:
                try:
                    parse(one + two + three)
                except HubclientError as error:
                    assert "\n" not in str(error)


def test_a_password_in_a_url_is_not_shown():
    with pytest.raises(UsageError) as caught:
        parse("https://alice:secret@huggingface.co/org/name")
    assert "secret" not in str(caught.value)
