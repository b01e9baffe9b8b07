"""Names and places of the Hugging Face cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils._validators import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from hubclient.cache.layout import RepoId, RepoPaths, default_cache, hf_home, is_commit
from hubclient.errors import DamagedInput, UsageError

COMMIT = "a" * 40


@pytest.mark.parametrize(
    ("text", "repo"),
    [
        ("org/name", RepoId("org/name")),
        ("gpt2", RepoId("gpt2")),
        ("models/org/name", RepoId("org/name")),
        ("models/gpt2", RepoId("gpt2")),
        ("datasets/org/name", RepoId("org/name", "dataset")),
        ("dataset/org/name", RepoId("org/name", "dataset")),
        ("spaces/org/name", RepoId("org/name", "space")),
        ("Org-1/na.me_2", RepoId("Org-1/na.me_2")),
    ],
)
def test_a_repository_is_read_as_people_write_it(text: str, repo: RepoId):
    assert RepoId.parse(text) == repo
    assert RepoId.parse(str(repo)) == repo or "/" not in text
    assert RepoId.of_folder(repo.folder) == repo
    assert repo.folder == repo_folder_name(repo_id=repo.name, repo_type=repo.type)


@pytest.mark.parametrize(
    "text", ["", "/", "a/", "/a", "a/b/c", "a--b", "a/b--c", "a/..", "../a", "a/b..c", ".a/b", "a/b.", "-a/b", "a b/c", "a\\b", "é/b", "a/b.git", "a/" + "b" * 97, "a/\0"]
)  # fmt: skip
def test_what_is_no_repository_is_refused_in_a_sentence(text: str):
    with pytest.raises(UsageError, match="no repository's name") as caught:
        RepoId.parse(text)
    assert str(caught.value).isprintable()


@given(st.from_regex(r"[A-Za-z0-9_.-]{1,12}(/[A-Za-z0-9_.-]{1,12})?", fullmatch=True))
def test_what_we_take_the_hub_takes_too(text: str):
    if RepoId(text).is_valid:
        try:
            validate_repo_id(text)
        except HFValidationError as error:  # pragma: no cover
            raise AssertionError(text) from error


@pytest.mark.parametrize("folder", ["models", "models--", "blobs", ".locks", "things--a--b", "models--..", "models--a--b--c--d"])
def test_other_folders_are_no_repositories(folder: str):
    assert RepoId.of_folder(folder) is None


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "C:\\x", "\\\\host\\share", "a\0b", "x" * 300, "con", ""])
def test_hostile_names_have_no_place(tmp_path: Path, name: str):
    paths = RepoPaths(tmp_path, RepoId("org/name"))
    for place in (
        lambda: paths.pointer(COMMIT, name),
        lambda: paths.ref(name),
        lambda: paths.blob(name),
        lambda: paths.lock(name),
    ):
        with pytest.raises((DamagedInput, UsageError)):
            place()


def test_blobs_and_commits_are_one_part_of_a_path(tmp_path: Path):
    paths = RepoPaths(tmp_path, RepoId("org/name"))
    for place in (paths.blob, paths.snapshot, paths.tree, paths.lock, paths.no_exist):
        with pytest.raises(UsageError):
            place("a/b")
    assert paths.pointer(COMMIT, "a/b.json") == tmp_path / "models--org--name" / "snapshots" / COMMIT / "a" / "b.json"


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({"HF_HUB_CACHE": "/a", "HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c"}, "/b"),
        ({"HF_HOME": "/c", "XDG_CACHE_HOME": "/d"}, "/c/hub"),
        ({"XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
        ({"HF_HUB_CACHE": "", "HF_HOME": ""}, str(Path.home() / ".cache" / "huggingface" / "hub")),
    ],
)
def test_the_cache_is_where_the_variables_say(environ: dict[str, str], place: str):
    assert str(default_cache(environ)) == place


def test_home_expands_variables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOMEWHERE", "/s")
    assert hf_home({"HF_HOME": "$SOMEWHERE/hf"}) == Path("/s/hf")


def test_a_commit_is_forty_hexadecimal_digits():
    assert is_commit(COMMIT) and not is_commit("A" * 40) and not is_commit("a" * 39) and not is_commit("a" * 40 + "\n")
