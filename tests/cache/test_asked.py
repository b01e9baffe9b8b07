"""How people name repositories, revisions and files."""

from __future__ import annotations

import pytest

from hubclient.cache.asked import Asked
from hubclient.cache.layout import RepoId
from hubclient.errors import UsageError

COMMIT = "a" * 40


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("org/name", Asked(RepoId("org/name"))),
        ("gpt2", Asked(RepoId("gpt2"))),
        ("org/name@v1.0", Asked(RepoId("org/name"), "v1.0")),
        ("org/name@feature/x", Asked(RepoId("org/name"), "feature/x")),
        ("org/name@refs/pr/1:sub/a@b.gguf", Asked(RepoId("org/name"), "refs/pr/1", "sub/a@b.gguf")),
        (f"org/name@{COMMIT}", Asked(RepoId("org/name"), COMMIT)),
        ("org/name:model.gguf", Asked(RepoId("org/name"), None, "model.gguf")),
        ("datasets/org/name@main", Asked(RepoId("org/name", "dataset"), "main")),
    ],
)
def test_a_repository_is_named_with_its_revision_and_file(text: str, asked: Asked):
    assert Asked.parse(text) == asked
    assert str(Asked.parse(str(asked))) == str(asked)
    assert asked.revision == (asked.given or "main")


@pytest.mark.parametrize(
    "text", ["", "org/", "a/b/c", "org/name@", "org/name:", "org/name@../x", "org/name@/x", "org/name@a\nb", "../x"]
)
def test_what_names_no_repository_is_wrong_usage(text: str):
    with pytest.raises(UsageError):
        Asked.parse(text)
