"""huggingface_hub, as it is installed, takes the hub for huggingface.co."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hubserver import HubProcess, HubServer
from reference import ROOT

huggingface_hub = pytest.importorskip("huggingface_hub")
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi  # noqa: E402
from huggingface_hub.errors import (  # noqa: E402
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

WEIGHTS = os.urandom(3 << 20)
FILES = {"config.json": b'{"model_type": "llama"}', "sub/dir/x.txt": b"hello", "model.safetensors": WEIGHTS}


@pytest.fixture(autouse=True)
def plain_transfers(monkeypatch):
    """With hf_xet, large files are sent to a xet server, which this hub is not; HF_HUB_DISABLE_XET=1 says so."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


@pytest.fixture
def commit(hub):
    return hub.repo("org/name", labels=("text-generation",)).commit(FILES)


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.endpoint, token=False)


@pytest.fixture
def alice(hub):
    return HfApi(endpoint=hub.endpoint, token=hub.token("alice", "write"))


def test_what_there_is_to_know_of_a_repository(hub, commit, api):
    told = api.model_info("org/name", files_metadata=True)
    assert (told.sha, told.author, told.private, told.gated) == (commit, "org", False, False)
    assert told.tags == ["text-generation", "safetensors", "transformers"] and told.config == {"model_type": "llama"}
    sizes = {file.rfilename: (file.size, file.lfs.sha256 if file.lfs else file.blob_id) for file in told.siblings}
    assert sizes == {name: (entry.size, entry.etag) for name, entry in hub.repo("org/name").entries().items()}
    assert set(vars(api.model_info("org/name", expand=["downloads"]))) and api.repo_exists("org/name")
    assert not api.repo_exists("org/other") and api.file_exists("org/name", "config.json")


def test_trees_paths_refs_and_history(hub, commit, api):
    repo = hub.repo("org/name")
    repo.tag("v1")
    repo.branch("feature/x")
    later = repo.commit({"config.json": b"{}"}, title="Empty")
    repo.open_pull("refs/heads/main")
    names = [entry.path for entry in api.list_repo_tree("org/name", recursive=True, revision="feature/x")]
    assert names == ["config.json", "model.safetensors", "sub", "sub/dir", "sub/dir/x.txt"]
    assert [entry.path for entry in api.list_repo_tree("org/name", "sub/dir")] == ["sub/dir/x.txt"]
    info = api.get_paths_info("org/name", ["sub", "model.safetensors", "none"], expand=True)
    assert [entry.path for entry in info] == ["sub", "model.safetensors"] and info[1].last_commit.title == "Empty"
    refs = api.list_repo_refs("org/name", include_pull_requests=True)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": later, "feature/x": commit}
    assert [(ref.name, ref.ref) for ref in refs.pull_requests] == [("1", "refs/pr/1")]
    assert [ref.ref for ref in refs.tags] == ["refs/tags/v1"]
    assert [entry.commit_id for entry in api.list_repo_commits("org/name")] == [later, commit]


def test_long_trees_take_several_pages(tmp_path):
    with HubServer(page_size=7) as hub:
        hub.repo("org/name").commit({f"f{n}": b"" for n in range(50)})
        assert len(list(HfApi(endpoint=hub.endpoint, token=False).list_repo_tree("org/name"))) == 50


@pytest.mark.parametrize("cdn", [True, False])
@pytest.mark.parametrize("revision", ["main", "feature/x", "v1", "refs/pr/1"])
def test_a_snapshot_is_what_was_committed_and_verifies(cdn, revision, tmp_path):
    with HubServer(cdn=cdn) as hub:
        repo = hub.repo("org/name")
        repo.commit(FILES)
        repo.branch("feature/x")
        repo.tag("v1")
        repo.open_pull("refs/heads/main")
        api = HfApi(endpoint=hub.endpoint, token=False)
        folder = api.snapshot_download("org/name", revision=revision, cache_dir=tmp_path)
        got = {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
        assert got == FILES
        checked = api.verify_repo_checksums("org/name", revision=revision, cache_dir=tmp_path)
        assert (checked.checked_count, checked.mismatches, checked.missing_paths) == (3, [], [])
        assert bool(hub.asked(origin="cdn")) == cdn


def test_no_token_leaves_for_the_other_origin(hub, alice, tmp_path):
    hub.repo("alice/private", private=True).commit(FILES)
    alice.hf_hub_download("alice/private", "model.safetensors", cache_dir=tmp_path)
    assert all("authorization" in request.headers for request in hub.asked("/alice/private/", origin="hub"))
    assert hub.asked(origin="cdn") and not any("authorization" in request.headers for request in hub.asked(origin="cdn"))


def test_errors_are_those_of_the_hub(hub, commit, api, alice):
    hub.repo("org/gated", gated="manual").commit(FILES)
    hub.repo("org/private", private=True).commit(FILES)
    for who in (api, alice):
        for name in ("org/private", "org/missing"):
            with pytest.raises(RepositoryNotFoundError):
                who.model_info(name)
        with pytest.raises(GatedRepoError):
            who.hf_hub_download("org/gated", "config.json")
        with pytest.raises(GatedRepoError):
            who.auth_check("org/gated")
        with pytest.raises(RevisionNotFoundError):
            who.model_info("org/name", revision="none")
        with pytest.raises(RemoteEntryNotFoundError):
            who.hf_hub_download("org/name", "none")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api.whoami("hf_wrong")


def test_a_renamed_repository_is_followed(hub, commit, api, tmp_path):
    hub.rename("org/name", "org/other")
    assert api.hf_hub_download("org/name", "sub/dir/x.txt", cache_dir=tmp_path)
    assert api.hf_hub_download("org/name", "model.safetensors", cache_dir=tmp_path)


def test_who_and_search(hub, commit, alice):
    assert (alice.whoami()["name"], alice.whoami()["auth"]["accessToken"]["role"]) == ("alice", "write")
    assert [found.id for found in alice.list_models(search="nam", filter="safetensors", full=True)] == ["org/name"]
    assert [found.id for found in alice.list_datasets()] == []


def test_uploads(hub, alice, tmp_path):
    url = alice.create_repo("alice/new", private=True)
    assert (url.repo_id, str(url)) == ("alice/new", f"{hub.endpoint}/alice/new")
    with pytest.raises(HfHubHTTPError, match="already created"):
        alice.create_repo("alice/new")
    assert alice.create_repo("alice/new", exist_ok=True).repo_id == "alice/new"
    first = alice.upload_file(path_or_fileobj=b"abc", path_in_repo="a.txt", repo_id="alice/new")
    assert first.oid == alice.model_info("alice/new").sha and alice.model_info("alice/new").private
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    pull = alice.upload_folder(folder_path=tmp_path, repo_id="alice/new", create_pr=True)
    assert pull.pr_revision == "refs/pr/1" and set(hub.repo("alice/new").files()) == {".gitattributes", "a.txt"}
    assert alice.upload_folder(folder_path=tmp_path, repo_id="alice/new").pr_url is None
    for revision in ("main", "refs/pr/1"):
        assert hub.repo("alice/new").files(revision).items() >= {"a.txt": b"abc", **FILES}.items()
    assert hub.asked("/lfs/upload/", "PUT", "cdn") and not any("authorization" in r.headers for r in hub.asked(origin="cdn"))
    again = alice.upload_folder(folder_path=tmp_path, repo_id="alice/new")
    assert again.oid == alice.model_info("alice/new").sha  # nothing changed, no commit


def test_commits_delete_copy_and_mind_their_parent(hub, alice):
    alice.create_repo("alice/new")
    adding = [CommitOperationAdd("a.bin", WEIGHTS), CommitOperationAdd("d/b.txt", b"b"), CommitOperationAdd("d/c.txt", b"c")]
    first = alice.create_commit("alice/new", adding, commit_message="Add")
    moving = [CommitOperationCopy("a.bin", "e.bin"), CommitOperationDelete("a.bin"), CommitOperationDelete("d/")]
    alice.create_commit("alice/new", moving, commit_message="Move", parent_commit=first.oid)
    assert hub.repo("alice/new").files().keys() == {".gitattributes", "e.bin"}
    assert hub.repo("alice/new").files()["e.bin"] == WEIGHTS
    with pytest.raises(HfHubHTTPError, match="412"):
        alice.create_commit("alice/new", [CommitOperationAdd("x", b"")], commit_message="Late", parent_commit=first.oid)
    with pytest.raises(RemoteEntryNotFoundError):
        alice.delete_file("none", "alice/new")


def test_branches_and_tags_are_made(hub, alice):
    alice.create_repo("alice/new")
    alice.create_branch("alice/new", branch="feature/x")
    alice.create_tag("alice/new", tag="v1", revision="feature/x")
    alice.create_branch("alice/new", branch="feature/x", exist_ok=True)
    alice.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id="alice/new", revision="feature/x")
    assert "a" in hub.repo("alice/new").files("feature/x") and "a" not in hub.repo("alice/new").files()
    alice.delete_repo("alice/new")
    assert not alice.repo_exists("alice/new")


def test_who_may_not_write_is_told(hub, commit, api):
    reader = HfApi(endpoint=hub.endpoint, token=hub.token("alice", "read"))
    stranger = HfApi(endpoint=hub.endpoint, token=hub.token("bob", "write"))
    with pytest.raises(HfHubHTTPError, match="401"):
        api.create_repo("alice/new")
    with pytest.raises(HfHubHTTPError, match="403"):
        reader.create_repo("alice/new")
    with pytest.raises(HfHubHTTPError, match="403"):
        stranger.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id="org/name")
    assert stranger.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id="org/name", create_pr=True).pr_num == 1
    member = HfApi(endpoint=hub.endpoint, token=hub.token("carol", "write", ["org"]))
    member.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id="org/name")


def test_with_hf_xet_installed_streams_and_small_files_go_the_plain_way(hub, alice, monkeypatch):
    pytest.importorskip("hf_xet")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    alice.create_repo("alice/new")
    alice.upload_file(path_or_fileobj=b"small", path_in_repo="a.txt", repo_id="alice/new")
    alice.upload_file(path_or_fileobj=io.BytesIO(WEIGHTS), path_in_repo="a.safetensors", repo_id="alice/new")
    assert hub.repo("alice/new").files()["a.safetensors"] == WEIGHTS


def test_xet_hashes_where_they_are_asked_for(tmp_path):
    with HubServer(xet=True) as hub:
        hub.repo("org/name").commit(FILES)
        api = HfApi(endpoint=hub.endpoint, token=False)
        api.snapshot_download("org/name", cache_dir=tmp_path)
        tree = huggingface_hub.get_cached_repo_tree("org/name", cache_dir=tmp_path)
    assert {entry.path for entry in tree if entry.xet_hash} == {"model.safetensors"}


def command(*arguments: str, home, endpoint: str) -> str:
    code = "import sys; from huggingface_hub.cli.hf import main; sys.exit(main())"
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_COLOR": "1"}
    environment.pop("HF_TOKEN", None)
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_command_line_works_with_a_hub_in_a_process_of_its_own(tmp_path):
    folder = tmp_path / "root" / "models" / "org" / "name"
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    with HubProcess(tmp_path / "root") as hub:
        hub.commit("org/other", {"model.safetensors": WEIGHTS, "a.txt": "a"}, {"labels": ["x"]})
        for name in ("org/name", "org/other"):
            command("download", name, home=tmp_path, endpoint=hub.endpoint)
            command("cache", "verify", name, home=tmp_path, endpoint=hub.endpoint)
        assert "org/other" in command("cache", "ls", home=tmp_path, endpoint=hub.endpoint)
        hub.fault("status", path="/api/whoami-v2", status=503)
        assert {request.origin for request in hub.requests} == {"hub", "cdn"}
        assert hub.token("alice").startswith("hf_")
        hub.clear()
        assert hub.requests == []
