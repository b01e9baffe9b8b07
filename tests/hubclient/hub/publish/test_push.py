"""What is pushed, what is refused before a byte is sent, and what becomes of cards that are there already."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from hostile_gguf import LITTLE
from hubserver import HubServer

from hubclient import Checkpoint
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.notes import Output, record_output
from hubclient.errors import (
    AccessDenied,
    DamagedInput,
    EnvironmentFault,
    NetworkFault,
    Offline,
    SourceChanged,
    SourceMissing,
    UsageError,
)
from hubclient.hub.net.patience import Patience
from hubclient.hub.net.session import Session
from hubclient.hub.publish import sending
from hubclient.hub.publish.card import BEGIN, END
from hubclient.hub.publish.parcel import gather
from hubclient.hub.publish.push import Pushed, push

GGUF = LITTLE.file([LITTLE.text("general.architecture", "llama")], [LITTLE.tensor("x", (4,))], bytes(16))
CARD = "---\nlicense: mit   # mine\ntags: [a]\n---\r\n# Mine\r\n\r\ntext with no end of line"


@pytest.fixture(autouse=True)
def _nothing_is_known(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub has no bytes yet, and no store of the kind that hf_xet sends to."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    server.store.bytes.known.clear()


@pytest.fixture
def alice(server: HubServer, cache: Path) -> Session:
    """May write to alice/... and to club/..."""
    return session(server, server.token("alice", "write", ["club"]))


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return put(tmp_path / "tiny-F32.gguf", GGUF)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.llama(tmp_path_factory.mktemp("made") / "llama")


def session(server: HubServer, token: str | bool, **options: Any) -> Session:
    return Session.of(server.endpoint, token, patience=Patience(first=0.001, longest=0.001), **options)


def put(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def sent(server: HubServer) -> list[str]:
    """Requests that change something, but for the check of a head."""
    return [f"{r.method} {r.path}" for r in server.requests if r.method in ("POST", "PUT") and "paths-info" not in r.path]


def text(server: HubServer, repo: str, name: str = "README.md", revision: str = "main") -> str:
    return server.repo(repo, private=server.store.repos["model", repo].private).files(revision)[name].decode()


def test_a_file_is_sent_to_a_new_repository_with_a_card(server: HubServer, alice: Session, gguf: Path) -> None:
    pushed = push(alice, gguf, "alice/tiny")
    files = server.repo("alice/tiny").files()
    assert files["tiny-F32.gguf"] == GGUF and pushed.created and not pushed.private and pushed.pr_url is None
    assert pushed.files == ("tiny-F32.gguf", "README.md") and pushed.bytes == len(GGUF)
    assert pushed.commit == server.repo("alice/tiny").refs["refs/heads/main"] and pushed.commit in pushed.url
    card = files["README.md"].decode()
    assert (
        card.startswith("---\nlibrary_name: gguf\ntags:\n- gguf\n- llama\n---\n\n# tiny\n")
        and "| `tiny-F32.gguf` | gguf | `F32` |" in card
    )


def test_a_folder_is_sent_without_what_never_goes(server: HubServer, alice: Session, llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for item in llama.iterdir():
        put(folder / item.name, item.read_bytes())
    for name in (
        ".git/config",
        ".cache/huggingface/x",
        ".env",
        "prod.env",
        "a.gguf.partial",
        "a.gguf.partial.journal",
        "token",
        "sub/.hidden",
    ):
        put(folder / name, "secret")
    put(folder / "sub" / "notes.txt", "hello")
    pushed = push(alice, folder, "club/tiny", private=True, card=False)
    repo = server.repo("club/tiny", private=True)
    assert set(repo.files()) == {*(item.name for item in llama.iterdir()), "sub/notes.txt", ".gitattributes"}
    assert repo.files()["model.safetensors"] == (llama / "model.safetensors").read_bytes()
    assert pushed.private and pushed.left_out[".git"] == "hidden" and pushed.left_out["a.gguf.partial"] == "unfinished"
    assert pushed.left_out["token"] == pushed.left_out["prod.env"] == "may be a secret"


def test_patterns_choose(server: HubServer, alice: Session, llama: Path) -> None:
    pushed = push(alice, llama, "alice/part", include=["*.json"], exclude=["tokenizer*"])
    assert pushed.files == ("config.json",)
    with pytest.raises(UsageError, match="no file fits"):
        push(alice, llama, "alice/part", include=["*.ggfu"])


def test_what_others_download_is_what_was_there(server: HubServer, alice: Session, llama: Path, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    push(alice, llama, "alice/tiny", private=True)
    found = Path(snapshot_download("alice/tiny", endpoint=server.endpoint, token=alice.token.text, local_dir=tmp_path / "came"))
    for item in llama.iterdir():
        assert (found / item.name).read_bytes() == item.read_bytes()


def test_no_byte_is_sent_twice(server: HubServer, alice: Session, gguf: Path) -> None:
    first = push(alice, gguf, "alice/tiny")
    server.clear()
    again = push(alice, gguf, "alice/tiny")
    assert again.commit == first.commit and "no new commit" in again.notes[0]
    assert not server.asked(method="PUT") and not server.asked("/commit/")


def test_the_token_goes_to_the_hub_alone(server: HubServer, alice: Session, llama: Path) -> None:
    push(alice, llama, "alice/tiny")
    assert server.asked(origin="cdn", method="PUT")
    assert not [request for request in server.asked(origin="cdn") if "authorization" in request.headers]


def test_a_name_without_a_namespace_is_ones_own(server: HubServer, alice: Session, gguf: Path) -> None:
    assert push(alice, gguf, "tiny").repo == "alice/tiny"


def test_a_repository_that_moved_is_found(server: HubServer, alice: Session, gguf: Path) -> None:
    server.repo("alice/old").commit({"a": b"1"})
    server.rename("alice/old", "alice/new")
    assert push(alice, gguf, "alice/old").repo == "alice/new"


# Pull requests and branches


def test_a_pull_request_leaves_the_branch_alone(server: HubServer, alice: Session, gguf: Path) -> None:
    before = server.repo("bob/tiny").commit({"a.txt": b"1"})
    pushed = push(alice, gguf, "bob/tiny", create_pr=True)
    repo = server.repo("bob/tiny")
    assert repo.refs["refs/heads/main"] == before and pushed.pr_url and pushed.pr_url.endswith("/bob/tiny/discussions/1")
    assert repo.files("refs/pr/1")["tiny-F32.gguf"] == GGUF


def test_a_branch_that_is_new_is_made(server: HubServer, alice: Session, gguf: Path) -> None:
    server.repo("alice/tiny").commit({"a.txt": b"1"})
    pushed = push(alice, gguf, "alice/tiny", revision="gguf")
    repo = server.repo("alice/tiny")
    assert (
        "tiny-F32.gguf" in repo.files("gguf") and "tiny-F32.gguf" not in repo.files() and "the branch gguf is new" in pushed.notes
    )


def test_a_pull_request_needs_its_repository_and_branch(server: HubServer, alice: Session, gguf: Path) -> None:
    with pytest.raises(SourceMissing, match="there is no alice/none"):
        push(alice, gguf, "alice/none", create_pr=True)
    server.repo("alice/tiny").commit({"a.txt": b"1"})
    with pytest.raises(SourceMissing, match="no branch 'none'"):
        push(alice, gguf, "alice/tiny", create_pr=True, revision="none")
    assert not sent(server)


# Who may, and who sees it


def refuses(server: HubServer, error: type[Exception], match: str, *arguments: Any, **options: Any) -> Any:
    """Nothing is sent."""
    with pytest.raises(error, match=match) as caught:
        push(*arguments, **options)
    assert not sent(server)
    assert "\n" not in str(caught.value)
    return caught.value


def test_private_is_never_made_public(server: HubServer, alice: Session, gguf: Path) -> None:
    server.repo("alice/tiny").commit({"a.txt": b"1"})
    refuses(server, UsageError, "is public already", alice, gguf, "alice/tiny", private=True)
    server.repo("alice/hidden", private=True).commit({"a.txt": b"1"})
    refuses(server, UsageError, "is private already", alice, gguf, "alice/hidden", private=False)
    assert push(alice, gguf, "alice/hidden").private


def test_a_hub_that_makes_public_what_was_to_be_private_gets_nothing(
    server: HubServer, alice: Session, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda *_a, **_k: server.repo("alice/tiny").commit({"a": b"1"}))
    refuses(server, UsageError, "is public already, and private was asked for", alice, gguf, "alice/tiny", private=True)


def test_tokens_that_will_not_do(server: HubServer, gguf: Path, cache: Path) -> None:
    reader, wrong = session(server, server.token("alice", "read")), session(server, "hf_" + "x" * 34)
    refuses(server, AccessDenied, "may read and not write", reader, gguf, "alice/tiny")
    refuses(server, AccessDenied, "does not know the token", wrong, gguf, "alice/tiny")
    refuses(server, AccessDenied, "nobody is logged in", session(server, False), gguf, "alice/tiny")


def test_the_namespace_of_others(server: HubServer, alice: Session, gguf: Path) -> None:
    error = refuses(server, AccessDenied, "may not make bob/new", alice, gguf, "bob/new")
    assert "alice/, club/" in error.hint
    server.repo("bob/old").commit({"a.txt": b"1"})
    with pytest.raises(AccessDenied, match="does not allow this"):
        push(alice, gguf, "bob/old")
    assert list(server.repo("bob/old").files()) == ["a.txt"]


def test_offline_nothing_is_asked(server: HubServer, gguf: Path, cache: Path) -> None:
    with pytest.raises(Offline, match="push needs the Hub"):
        push(session(server, "hf_x", offline=True), gguf, "alice/tiny")
    assert not server.requests


# What is refused before anything is asked


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda folder: folder / "none", SourceMissing, "no such file"),
        (lambda folder: (folder / "empty").mkdir() or folder / "empty", UsageError, "nothing to push"),
        (lambda folder: put(folder / ".env", "A=1"), UsageError, "never pushed"),
        (lambda folder: put(folder / "f" / ".env", "A=1").parent, UsageError, "but what is never pushed"),
        (lambda folder: put(folder / "f" / "a:b.txt", "1").parent, DamagedInput, "holds ':'"),
        (lambda folder: (put(folder / "f" / "A.txt", "1"), put(folder / "f" / "a.txt", "2"))[0].parent, DamagedInput, "a.txt"),
        (lambda folder: put(folder / "cut.gguf", GGUF[:40]), DamagedInput, "cut.gguf"),
        (lambda folder: put(folder / "f" / "model.safetensors", b"\xff" * 20).parent, DamagedInput, "model.safetensors"),
        (lambda folder: put(folder / "f" / "config.json", "{").parent, DamagedInput, "config.json"),
        (lambda folder: put(folder / "x-00002-of-00003.gguf", GGUF), DamagedInput, "2 of 3 parts of this split are missing"),
        (lambda folder: put(folder / "f" / "run.sh", "export T=hf_" + "aB" * 17 + "\n").parent, UsageError, "looks like a token"),
    ],
)  # fmt: skip
def test_refused_before_a_request(
    server: HubServer, alice: Session, tmp_path: Path, make: Any, error: type[Exception], match: str
) -> None:
    refuses(server, error, match, alice, make(tmp_path), "alice/tiny")
    assert not server.requests


def test_links_may_not_lead_out(server: HubServer, alice: Session, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside" / "secret.txt", "x").parent
    for name, target, match in (
        ("out", outside / "secret.txt", "leads out"),
        ("folder", outside, "leads out"),
        ("inside", Path("sub"), "link to a folder"),
        ("none", Path("nowhere"), "leads nowhere"),
    ):
        folder = tmp_path / name
        put(folder / "sub" / "a.txt", "1")
        (folder / "link").symlink_to(target)
        refuses(server, UsageError if name != "none" else DamagedInput, match, alice, folder, "alice/tiny")
    assert not server.requests
    assert push(alice, tmp_path / "out", "alice/tiny", exclude=["link"]).files == ("sub/a.txt",)


def test_a_snapshot_of_the_cache_is_sent_with_what_its_links_show(server: HubServer, alice: Session, cache: Path) -> None:
    commit = "a" * 40
    paths = RepoPaths(cache, RepoId("club/source"))
    blob = put(paths.blob("b" * 64), GGUF)
    pointer = paths.pointer(commit, "sub/tiny.gguf")
    pointer.parent.mkdir(parents=True)
    pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    server.repo("club/source").commit({"a.txt": b"1"})
    pushed = push(alice, paths.snapshot(commit), "alice/copy", cache=cache)
    assert server.repo("alice/copy").files()["sub/tiny.gguf"] == GGUF and "sub/tiny.gguf" in pushed.files
    assert f"[`club/source@{commit[:12]}`]({server.endpoint}/club/source/tree/{commit})" in text(server, "alice/copy")


# Files that belong together


def test_one_part_of_a_split_stands_for_all(server: HubServer, alice: Session, tmp_path: Path, llama: Path) -> None:
    made = Checkpoint.from_pretrained(llama).save_pretrained(
        tmp_path / "s.gguf", format="gguf", type="f16", max_shard_size=100_000
    )
    parts = sorted(path for path in tmp_path.iterdir() if path.suffix == ".gguf")
    assert len(parts) > 1 and made
    pushed = push(alice, parts[1], "alice/split")
    assert pushed.files == (*(part.name for part in parts), "README.md")
    assert text(server, "alice/split").count("| gguf | `F16` |") == len(parts)


def test_a_vision_part_beside_it_is_spoken_of(server: HubServer, alice: Session, gguf: Path) -> None:
    beside = put(gguf.with_name("mmproj-" + gguf.name), GGUF)
    pushed = push(alice, gguf, "alice/tiny")
    assert any(str(beside) in note for note in pushed.notes) and beside.name not in pushed.files


# Cards


def test_a_card_in_the_repository_is_only_added_to(server: HubServer, alice: Session, gguf: Path) -> None:
    server.repo("alice/tiny").commit({"README.md": CARD.encode()})
    push(alice, gguf, "alice/tiny")
    added = text(server, "alice/tiny")
    assert added.startswith(CARD + "\n\n" + BEGIN) and added.endswith(END + "\n")
    push(alice, put(gguf.with_name("other.gguf"), GGUF), "alice/tiny")
    both = text(server, "alice/tiny")
    assert both.startswith(CARD) and both.count(BEGIN) == 1 and "`other.gguf`" in both and "`tiny-F32.gguf`" in both


def test_rows_of_files_that_are_gone_go(server: HubServer, alice: Session, gguf: Path) -> None:
    push(alice, gguf, "alice/tiny")
    server.repo("alice/tiny").commit({gguf.name: None})
    push(alice, put(gguf.with_name("other.gguf"), GGUF), "alice/tiny")
    assert gguf.name not in text(server, "alice/tiny")


def test_a_folders_card_is_sent_as_it_is_where_there_is_none(server: HubServer, alice: Session, gguf: Path) -> None:
    put(gguf.with_name("README.md"), CARD)
    push(alice, gguf.parent, "alice/tiny", include=["*.md", "*.gguf"])
    assert text(server, "alice/tiny") == CARD


def test_a_folders_card_does_not_replace_the_repositorys(server: HubServer, alice: Session, gguf: Path) -> None:
    server.repo("alice/tiny").commit({"README.md": b"# Theirs\n"})
    mine = put(gguf.with_name("README.md"), CARD)
    pushed = push(alice, gguf.parent, "alice/tiny", include=["*.md", "*.gguf"])
    assert text(server, "alice/tiny").startswith("# Theirs\n\n" + BEGIN) and any("was kept" in note for note in pushed.notes)
    push(alice, gguf.parent, "alice/tiny", include=["*.md", "*.gguf"], card=False)
    assert text(server, "alice/tiny").startswith("# Theirs\n")
    push(alice, mine, "alice/tiny")
    assert text(server, "alice/tiny") == CARD


@pytest.mark.parametrize("card", [b"\xff\xfe not text", b"x" * (2 << 20)])
def test_a_card_that_is_no_text_stays(server: HubServer, alice: Session, gguf: Path, card: bytes) -> None:
    server.repo("alice/tiny").commit({"README.md": card})
    pushed = push(alice, gguf, "alice/tiny")
    assert server.repo("alice/tiny").files()["README.md"] == card and "stays as it is" in pushed.notes[0]


def test_a_card_that_comes_cut_is_not_written_back(server: HubServer, alice: Session, gguf: Path) -> None:
    server.repo("alice/tiny").commit({"README.md": CARD.encode()})
    server.fault("flip", path="*/resolve/*", after=3)
    with pytest.raises(NetworkFault, match="other bytes"):
        push(alice, gguf, "alice/tiny")
    assert text(server, "alice/tiny") == CARD


def test_no_card_if_none_is_wanted(server: HubServer, alice: Session, gguf: Path) -> None:
    push(alice, gguf, "alice/tiny", card=False)
    assert "README.md" not in server.repo("alice/tiny").files()


def noted(cache: Path, path: Path, repo: str, commit: str) -> None:
    record_output(RepoPaths(cache, RepoId(repo)), Output(str(path.resolve()), "gguf", "F32", commit, "2026-01-01T00:00:00Z"))


def test_the_card_says_what_it_was_made_from(server: HubServer, alice: Session, gguf: Path, cache: Path) -> None:
    commit = server.repo("club/base", details={"cardData": {"license": "apache-2.0"}}).commit({"a.txt": b"1"})
    noted(cache, gguf, "club/base", commit)
    push(alice, gguf, "alice/tiny")
    card = text(server, "alice/tiny")
    assert {"license: apache-2.0", "base_model: club/base", "base_model_relation: quantized"} <= {*card.splitlines()}
    assert f"[`club/base@{commit[:12]}`]({server.endpoint}/club/base/tree/{commit})" in card


def test_a_public_card_does_not_name_what_is_private(server: HubServer, alice: Session, gguf: Path, cache: Path) -> None:
    commit = server.repo("club/secret", private=True).commit({"a.txt": b"1"})
    noted(cache, gguf, "club/secret", commit)
    pushed = push(alice, gguf, "alice/tiny")
    assert "secret" not in text(server, "alice/tiny") and any("club/secret" in note for note in pushed.notes)
    push(alice, gguf, "alice/hidden", private=True)
    assert "base_model: club/secret" in text(server, "alice/hidden")


def test_what_headers_say_is_asked_of_the_hub(server: HubServer, alice: Session, tmp_path: Path) -> None:
    pairs = [
        LITTLE.text("general.architecture", "llama"),
        LITTLE.text("general.source.url", "https://elsewhere.example/a/b"),
        LITTLE.text("general.base_model.0.repo_url", "https://huggingface.co/club/base"),
        LITTLE.text("general.license", "other"),
        LITTLE.text("general.license.name", "ours"),
    ]
    path = put(tmp_path / "a.gguf", LITTLE.file(pairs, [LITTLE.tensor("x", (4,))], bytes(16)))
    push(alice, path, "alice/first")
    assert "base_model" not in text(server, "alice/first") and "license: other\nlicense_name: ours\n" in text(
        server, "alice/first"
    )
    server.repo("club/base").commit({"a.txt": b"1"})
    push(alice, path, "alice/second")
    assert "base_model: club/base" in text(server, "alice/second")


def test_a_configs_name_of_its_source_counts(server: HubServer, alice: Session, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", config={"_name_or_path": "club/base"})
    server.repo("club/base").commit({"a.txt": b"1"})
    push(alice, folder, "alice/tiny")
    card = text(server, "alice/tiny")
    assert "base_model: club/base\n" in card and "relation" not in card and "library_name: transformers" in card


def test_the_same_files_give_the_same_card(server: HubServer, alice: Session, llama: Path) -> None:
    push(alice, llama, "alice/tiny")
    push(alice, llama, "club/tiny")
    assert text(server, "alice/tiny") == text(server, "club/tiny")


# Faults


def test_a_commit_in_between_is_seen(server: HubServer, alice: Session, gguf: Path) -> None:
    server.repo("alice/tiny").commit({"README.md": b"old\n"})
    fault = server.fault("status", path="*/commit/*", status=412, times=1)
    push(alice, gguf, "alice/tiny")
    assert fault.struck == 1 and text(server, "alice/tiny").startswith("old\n\n" + BEGIN)
    server.fault("status", path="*/commit/*", status=412)
    with pytest.raises(NetworkFault, match="others commit"):
        push(alice, put(gguf.with_name("b.gguf"), GGUF), "alice/tiny")


def test_a_file_that_changes_is_noticed(server: HubServer, alice: Session, gguf: Path) -> None:
    with pytest.raises(SourceChanged, match="changed while it was pushed"):
        push(alice, gguf, "alice/tiny", progress=lambda _done, _total: os.utime(gguf, ns=(1, 1)))


def test_a_hub_that_holds_something_else_is_found_out(
    server: HubServer, alice: Session, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = type(server.store.bytes).large
    server.repo("alice/other").commit({"x.gguf": b"other"})
    other = server.repo("alice/other").entries()["x.gguf"].lfs_sha256
    assert other
    monkeypatch.setattr(type(server.store.bytes), "large", lambda self, _sha, size: real(self, other, size))
    with pytest.raises(NetworkFault, match="holds other bytes"):
        push(alice, gguf, "alice/tiny")


@pytest.mark.parametrize(
    "path", ["*/api/whoami-v2", "*/api/models/alice/tiny", "*/preupload/*", "*/objects/batch", "*/upload/*", "*/commit/*"]
)
@pytest.mark.parametrize("status", [400, 403, 404])
def test_every_refusal_is_one_sentence(server: HubServer, alice: Session, gguf: Path, path: str, status: int) -> None:
    server.repo("alice/tiny", private=False).commit({"a.txt": b"1"})
    server.fault("status", path=path, status=status)
    with pytest.raises(EnvironmentFault) as caught:
        push(alice, gguf, "alice/tiny", private=None)
    assert "\n" not in str(caught.value) and "hf_" not in str(caught.value)


def test_a_hub_without_xet_is_told_of(server: HubServer, alice: Session, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hf_xet")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    with pytest.raises(EnvironmentFault, match="xet-write-token") as caught:
        push(alice, gguf, "alice/tiny")
    assert caught.value.hint and "HF_HUB_DISABLE_XET" in caught.value.hint


def test_the_result_can_be_told_in_json(server: HubServer, alice: Session, gguf: Path) -> None:
    from dataclasses import asdict

    pushed = push(alice, gguf, "alice/tiny")
    assert isinstance(pushed, Pushed) and json.loads(json.dumps(asdict(pushed)))["repo"] == "alice/tiny"


def test_an_upload_of_several_files_confirms_them_to_the_hub_alone(
    server: HubServer, alice: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hubpush

    told = hubpush.JSONResponse

    def elsewhere(content: Any, status: int = 200) -> Any:
        for item in content.get("objects", ()) if isinstance(content, dict) else ():
            item["actions"]["verify"]["href"] = f"{server.cdn}/verify"
        return told(content, status)

    monkeypatch.setattr(hubpush, "JSONResponse", elsewhere)
    for name in "ab":
        put(tmp_path / "two" / f"{name}.gguf", GGUF + name.encode())
    with pytest.raises(NetworkFault, match="which the token is not for") as caught:
        push(alice, tmp_path / "two", "alice/two")
    assert caught.value.hint is None
    assert not [request for request in server.asked(origin="cdn") if "authorization" in request.headers]


def test_no_list_of_programs_is_fetched_to_say_which_one_calls(
    server: HubServer, alice: Session, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import _headers

    asked: list[None] = []
    monkeypatch.setattr(_headers, "detect_agent", lambda: asked.append(None))
    push(alice, gguf, "alice/tiny")
    assert not asked and not constants.HF_HUB_DISABLE_TELEMETRY


def test_an_interrupt_ends_digests_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "two"
    for name in "ab":
        put(folder / f"{name}.gguf", GGUF)
    waiting, ended = threading.Event(), threading.Event()

    def digest_file(path: Path, _algorithm: str, count: Callable[[int], None]) -> Any:
        if path.name == "a.gguf":
            waiting.wait(30)
            raise KeyboardInterrupt
        waiting.set()
        try:
            for _ in range(3000):
                time.sleep(0.01)
                count(1)
        finally:
            ended.set()

    monkeypatch.setattr(sending, "digest_file", digest_file)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        sending.digests(gather(folder, (), ()))
    assert ended.wait(30) and time.monotonic() - begun < 20
