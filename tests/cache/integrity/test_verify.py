"""Every wrong bit in a cache is found, offline, and nothing that is right is accused, whoever wrote it and whatever goes on meanwhile."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cachemaking import MAIN, OTHER, git_sha1, make, sha256, spoil, state, xet
from hypothesis import given, settings
from hypothesis import strategies as st

from hubclient.cache.digests import Digest, digest_file
from hubclient.cache.integrity import reading
from hubclient.cache.integrity import verify as integrity
from hubclient.cache.integrity.findings import Finding, Verification
from hubclient.cache.integrity.verify import judge, verify
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.sharedstore import entry_path
from hubclient.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent.parent
WEIGHTS = random.Random(5).randbytes(300)
FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": WEIGHTS, "a/b/deep.txt": b"deep"}
STYLES = ("symlink", "hardlink", "copy", "moved", "llama", "shared")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HUBCLIENT_CATALOG", str(tmp_path / "catalog"))
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


@pytest.fixture
def modes_count(tmp_path: Path) -> None:
    """Skip where files' modes keep nobody out, as they do not keep out root."""
    probe = tmp_path / "probe"
    probe.touch(mode=0)
    if os.access(probe, os.R_OK):
        pytest.skip("everything can be read here")


def kinds(found: Verification) -> list[str]:
    return [finding.kind for finding in found.findings]


def bytes_of(paths: RepoPaths, file: str = "model.safetensors", commit: str = MAIN) -> Path:
    return paths.snapshot(commit) / file


# what is right


@pytest.mark.parametrize("style", STYLES)
def test_what_every_program_leaves_is_right_and_stays_as_it_is(cache: Path, style: str):
    make(cache, FILES, style=style)
    make(cache, {**FILES, "more": b"x" * 999}, "org/second", style=style)
    before = state(cache)
    found = verify(cache)
    assert found.ok and not found.findings and found.repos == 2
    assert found.checked >= 7 and found.bytes >= sum(map(len, FILES.values()))
    assert state(cache) == before


@pytest.mark.parametrize("style", ["symlink", "hardlink", "shared"])
def test_names_of_blobs_are_enough(cache: Path, style: str):
    make(cache, FILES, style=style, tree=False)
    assert not verify(cache).findings


def test_bytes_are_read_once_however_many_files_and_repositories_show_them(cache: Path):
    data = random.Random(1).randbytes(5000)
    first = make(cache, {"x": data, "again/x": data}, tree=False)
    make(cache, {"y": data}, commit=OTHER, ref=None)
    second = RepoPaths(cache, RepoId("org/second"))
    second.blobs.mkdir(parents=True)
    os.link(first.blob(sha256(data)), second.blob(sha256(data)))
    found = verify(cache)
    assert found.ok and found.bytes == len(data) and found.checked == 2


def test_an_entry_of_the_shared_store_is_read_once(cache: Path):
    make(cache, {"x": WEIGHTS}, style="shared")
    make(cache, {"y": WEIGHTS}, "org/second", style="shared")
    found = verify(cache)
    assert found.ok and found.bytes == len(WEIGHTS) and found.checked == 2


def test_an_empty_or_absent_cache_is_right(cache: Path):
    assert verify(cache).ok and verify(cache / "nowhere").ok


def test_blobs_that_no_revision_shows_are_checked_too(cache: Path):
    paths = make(cache, FILES)
    orphan = paths.blob(sha256(b"orphan"))
    orphan.write_bytes(b"orphan")
    assert verify(cache).ok
    spoil(orphan, b"orphaN")
    found = verify(cache)
    assert kinds(found) == ["damaged"] and found.findings[0].blob == orphan.name and not found.findings[0].places


# what is wrong


@pytest.mark.parametrize("style", STYLES)
def test_every_bit_flip_is_found(cache: Path, style: str):
    paths = make(cache, FILES, style=style)
    every = range(8 * len(WEIGHTS)) if style == "symlink" else random.Random(7).sample(range(8 * len(WEIGHTS)), 40)
    for bit in every:
        bad = bytearray(WEIGHTS)
        bad[bit // 8] ^= 1 << bit % 8
        spoil(bytes_of(paths), bytes(bad))
        found = verify(cache)
        assert {finding.kind for finding in found.failures} == {"damaged"}, bit
        assert all(finding.expected == Digest("sha256", sha256(WEIGHTS)) for finding in found.failures)
        assert all(finding.found == Digest("sha256", sha256(bad)) for finding in found.failures)
        assert (MAIN, "model.safetensors") in found.failures[-1].places
    spoil(bytes_of(paths), WEIGHTS)
    assert verify(cache).ok


def test_bit_flips_anywhere_in_a_large_blob_are_found(cache: Path):
    data = random.Random(3).randbytes(3_500_000)
    paths = make(cache, {"big": data}, tree=False)
    for bit in [0, 8 * len(data) - 1, 8 * (1 << 20) - 1, 8 * (1 << 20), *random.Random(4).sample(range(8 * len(data)), 6)]:
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        spoil(bytes_of(paths, "big"), bytes(bad))
        assert kinds(verify(cache)) == ["damaged"], bit


@pytest.mark.parametrize("tree", [True, False])
@settings(max_examples=30, deadline=None)
@given(change=st.sampled_from(["cut", "grow", "zeros", "empty"]), at=st.integers(0, len(WEIGHTS) - 1))
def test_other_lengths_are_found(tmp_path_factory: pytest.TempPathFactory, tree: bool, change: str, at: int):
    folder = tmp_path_factory.mktemp("case")
    os.environ["HUBCLIENT_CATALOG"] = str(folder / "catalog")
    paths = make(folder / "hub", FILES, tree=tree)
    bad = {"cut": WEIGHTS[:at], "grow": WEIGHTS + b"x" * (at + 1), "zeros": WEIGHTS + bytes(at + 1), "empty": b""}[change]
    spoil(bytes_of(paths), bad)
    found = verify(folder / "hub")
    assert kinds(found) == ["size" if tree else "damaged"]
    assert found.findings[0].found_size == len(bad)
    assert not tree or (found.findings[0].size == 300 and found.bytes == sum(map(len, FILES.values())) - 300)  # not read
    del os.environ["HUBCLIENT_CATALOG"]


def test_a_blob_that_somebody_appended_to_through_the_link_is_found(cache: Path):
    """As peers do that open a file of a snapshot to write (paiml/aprender#3971)."""
    paths = make(cache, FILES, tree=False)
    os.chmod(paths.blob(git_sha1(FILES["config.json"])), 0o644)
    with open(bytes_of(paths, "config.json"), "ab") as file:
        file.write(b"\n")
    (finding,) = verify(cache).findings
    assert (finding.kind, finding.files, finding.commits) == ("damaged", ("config.json",), (MAIN,))
    assert "config.json" in str(finding) and "org/name" in str(finding) and finding.found_size == 24


def test_a_link_to_another_intact_blob_is_found(cache: Path):
    paths = make(cache, FILES)
    pointer = bytes_of(paths)
    for other, blob in ((paths.blob(git_sha1(b"deep")), b"deep"), (paths.blob(sha256(b"z" * 300)), b"z" * 300)):
        other.write_bytes(blob)
        pointer.unlink()
        pointer.symlink_to(os.path.relpath(other, pointer.parent))
        (finding,) = verify(cache).findings
        assert (finding.kind, finding.files, finding.expected) == (
            "swapped",
            ("model.safetensors",),
            Digest("sha256", sha256(WEIGHTS)),
        )


def test_a_copy_of_another_file_is_found(cache: Path):
    paths = make(cache, FILES, style="copy")
    spoil(bytes_of(paths), b"z" * 300)
    assert kinds(verify(cache)) == ["damaged"]


def test_links_to_nothing_and_to_elsewhere_are_found(cache: Path, tmp_path: Path):
    paths = make(cache, {f"f{number}": b"%d" % number for number in range(5)})
    (tmp_path / "secret").write_bytes(b"2")
    paths.blob(git_sha1(b"0")).unlink()
    for name, target in (("f1", "f1"), ("f2", str(tmp_path / "secret")), ("f3", "..")):
        (paths.snapshot(MAIN) / name).unlink()
        (paths.snapshot(MAIN) / name).symlink_to(target)
    found = {finding.files: finding for finding in verify(cache).findings}
    assert {files: finding.kind for files, finding in found.items()} == {
        ("f0",): "missing",
        ("f1",): "loop",
        ("f2",): "outside",
        ("f3",): "folder",
    }
    assert all(finding.expected and finding.is_failure for finding in found.values())


def test_one_bad_entry_of_the_shared_store_is_told_of_each_repository(cache: Path):
    make(cache, {"x": WEIGHTS}, style="shared")
    make(cache, {"y": WEIGHTS}, "org/second", style="shared")
    spoil(entry_path(cache, xet(WEIGHTS)), WEIGHTS[::-1])
    found = verify(cache)
    assert [(str(f.repo), f.files, f.kind, f.shared) for f in found.findings] == [
        ("org/name", ("x",), "damaged", xet(WEIGHTS)),
        ("org/second", ("y",), "damaged", xet(WEIGHTS)),
    ]


def test_a_ref_to_a_snapshot_that_is_not_here_and_a_broken_tree_are_found(cache: Path):
    paths = make(cache, FILES)
    (paths.refs / "v1").write_text("c" * 40)
    paths.tree(MAIN).write_text('{"format_version": 1')
    found = verify(cache)
    assert kinds(found) == ["ref", "tree"] and not found.ok
    assert "c" * 40 in str(found.findings[0]) and "refs/v1" in str(found.findings[0])


def test_a_list_that_says_nonsense_is_a_finding(cache: Path):
    paths = make(cache, FILES)
    for files in (
        {"../x": {"size": 1, "blob_id": "0" * 40}},
        {"x": {"size": -1, "blob_id": "0" * 40}},
        {"x": {"size": 1, "blob_id": "0"}},
    ):
        paths.tree(MAIN).write_text(json.dumps({"format_version": 1, "files": files}))
        assert kinds(verify(cache)) == ["tree"]


def test_what_cannot_be_read_is_a_finding(cache: Path, modes_count: None):
    paths = make(cache, FILES)
    paths.blob(sha256(WEIGHTS)).chmod(0)
    assert kinds(verify(cache)) == ["unreadable"]


def test_a_pipe_in_place_of_a_blob_is_not_waited_for(cache: Path):
    paths = make(cache, FILES)
    paths.blob(sha256(WEIGHTS)).unlink()
    os.mkfifo(paths.blob(sha256(WEIGHTS)))
    assert not verify(cache).ok


# what nobody says anything about


def test_bytes_of_unknown_digest_are_noted_and_held_against_that_the_next_time(cache: Path):
    paths = make(cache, FILES, style="moved", tree=False)
    first = verify(cache)
    assert first.ok and kinds(first) == ["unknown"] * 3
    assert not verify(cache).findings
    spoil(bytes_of(paths), WEIGHTS[::-1])
    (finding,) = verify(cache).findings
    assert (finding.kind, finding.files, finding.expected) == (
        "damaged",
        ("model.safetensors",),
        Digest("sha256", sha256(WEIGHTS)),
    )


def test_a_blob_that_is_called_otherwise_is_held_against_the_tree(cache: Path):
    paths = make(cache, FILES)
    os.rename(paths.blob(sha256(WEIGHTS)), paths.blobs / "W-weak-1")
    bytes_of(paths).unlink()
    bytes_of(paths).symlink_to("../../blobs/W-weak-1")
    assert not verify(cache).findings
    spoil(bytes_of(paths), WEIGHTS[::-1])
    assert kinds(verify(cache)) == ["damaged"]


@pytest.mark.parametrize("told", ["name", "content"])
def test_a_side_file_of_llama_cpp_proves_and_never_accuses(cache: Path, told: str):
    paths = make(cache, {"model.gguf": WEIGHTS}, style="moved", tree=False)
    name, content = (sha256(WEIGHTS), "opaque") if told == "name" else ("model.gguf", f'"{sha256(WEIGHTS)}"')
    (paths.blobs / f"{name}.etag").write_text(content)
    assert not verify(cache).findings
    notes = paths.notes / "digests"
    for note in notes.iterdir():
        note.unlink()
    (paths.blobs / f"{name}.etag").rename(paths.blobs / f"{'0' * 64}.etag")
    (paths.blobs / f"{'0' * 64}.etag").write_text(f'"{"1" * 64}"')
    found = verify(cache)
    assert found.ok and kinds(found) == ["unknown"]


def test_a_cache_that_cannot_be_written_is_verified(cache: Path, modes_count: None):
    paths = make(cache, FILES, style="moved", tree=False)
    paths.path.chmod(0o555)
    try:
        found = verify(cache)
    finally:
        paths.path.chmod(0o755)
    assert found.ok and kinds(found) == ["unknown"] * 3 and "noted" not in str(found.findings[0])


def test_fewer_files_than_the_commit_has_and_more_are_told_and_are_no_failure(cache: Path):
    paths = make(cache, FILES)
    bytes_of(paths, "config.json").unlink()
    (paths.snapshot(MAIN) / "notes.txt").write_bytes(b"mine")
    found = verify(cache)
    assert found.ok and sorted(kinds(found)) == ["partial", "unknown", "unlisted"]
    assert [finding.files for finding in found.findings if finding.kind == "partial"] == [("config.json",)]


# what is asked for


def test_a_revision_is_verified_alone(cache: Path):
    paths = make(cache, FILES)
    make(cache, {"other": b"o" * 400}, commit=OTHER, ref="dev")
    spoil(bytes_of(paths, "other", OTHER), b"p" * 400)
    name = [RepoId("org/name")]
    assert verify(cache, name, "main").ok and verify(cache, name, MAIN[:12]).ok
    assert kinds(verify(cache, name, "dev")) == ["damaged"] and kinds(verify(cache, name)) == ["damaged"]
    assert verify(cache, name, "main").checked == 3
    with pytest.raises(UsageError, match="v9"):
        verify(cache, name, "v9")
    with pytest.raises(UsageError):
        verify(cache, revision="main")


def test_a_repository_that_is_not_here_is_said(cache: Path):
    with pytest.raises(UsageError, match="org/none"):
        verify(cache, [RepoId("org/none")])


def test_findings_are_plain_data(cache: Path):
    paths = make(cache, FILES)
    spoil(bytes_of(paths), b"")
    data = json.loads(json.dumps(verify(cache).as_json()))
    assert data["ok"] is False and data["checked"] == 3
    (finding,) = data["findings"]
    assert (
        finding["kind"] == "size"
        and finding["files"] == ["model.safetensors"]
        and finding["expected"] == f"sha256 {sha256(WEIGHTS)}"
    )
    assert (finding["size"], finding["found_size"], finding["repo"]) == (300, 0, "org/name")


def test_progress_comes_to_all_bytes(cache: Path):
    make(cache, {f"f{number}": random.Random(number).randbytes(400_000) for number in range(20)})
    told: list[tuple[int, int]] = []
    verify(cache, progress=lambda done, total: told.append((done, total)), jobs=3)
    assert told[-1] == (8_000_000, 8_000_000) and told == sorted(told)


# while others are at work


def test_what_goes_together_with_its_snapshot_is_no_loss(cache: Path, monkeypatch: pytest.MonkeyPatch):
    paths = make(cache, FILES)

    def collect(path: str, *arguments: object) -> Digest:
        bytes_of(paths).unlink(missing_ok=True)
        os.unlink(path)
        raise FileNotFoundError(2, "gone")

    monkeypatch.setattr(reading, "digest_file", collect)
    (paths.snapshot(MAIN) / "config.json").unlink()
    (paths.snapshot(MAIN) / "a/b/deep.txt").unlink()
    found = verify(cache)
    assert found.ok and found.checked == 0 and kinds(found) == ["partial"]


def test_what_goes_without_its_snapshot_is_a_loss(cache: Path, monkeypatch: pytest.MonkeyPatch):
    paths = make(cache, FILES)
    blob = paths.blob(sha256(WEIGHTS))

    def lose(path: str, *arguments: object) -> Digest:
        if path == str(blob):
            blob.unlink()
        return digest_file(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "digest_file", lose)
    found = verify(cache)
    assert kinds(found) == ["missing"] and found.findings[0].files == ("model.safetensors",)


def test_what_is_mended_while_it_is_read_is_read_again(cache: Path, monkeypatch: pytest.MonkeyPatch):
    paths = make(cache, FILES)
    blob = paths.blob(sha256(WEIGHTS))
    spoil(blob, WEIGHTS[::-1])

    def mend(path: str, *arguments: object) -> Digest:
        digest = digest_file(path, *arguments)  # type: ignore[arg-type]
        if path == str(blob) and blob.read_bytes() != WEIGHTS:
            (cache / "good").write_bytes(WEIGHTS)
            os.replace(cache / "good", blob)
        return digest

    monkeypatch.setattr(reading, "digest_file", mend)
    assert verify(cache).ok


def test_what_never_rests_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch):
    paths = make(cache, {"x": WEIGHTS})
    blob, times = paths.blob(sha256(WEIGHTS)), iter(range(1, 100))

    def touch(path: str, *arguments: object) -> Digest:
        os.utime(blob, ns=(next(times), next(times)))
        return digest_file(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "digest_file", touch)
    assert kinds(verify(cache)) == ["unreadable"]


# going on

KILLED = """
import sys
from pathlib import Path
from hubclient.cache.integrity import marks
from hubclient.cache.integrity import verify as integrity
marks.EVERY_SECONDS = 0
found = integrity.verify(Path(sys.argv[1]), jobs=1)
print(found.bytes, found.skipped, found.checked)
"""


def run(cache: Path, point: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HUBCLIENT_FAULTPOINT": point}
    return subprocess.run([sys.executable, "-c", KILLED, str(cache)], env=env, cwd=ROOT, capture_output=True, text=True)


def test_a_killed_run_is_gone_on_with_and_a_finished_one_is_not(cache: Path):
    files = {f"f{number}": random.Random(number).randbytes(1000 + number) for number in range(10)}
    paths = make(cache, files)
    assert run(cache, "verify.marked:4").returncode == -signal.SIGKILL
    spoil(bytes_of(paths, "f9"), bytes(1009))  # marked, and changed since: the largest come first
    done = run(cache)
    left = sum(sorted(map(len, files.values()))[:6]) + 1009
    assert done.stdout.split() == [str(left), "3", "10"], done.stderr
    spoil(bytes_of(paths, "f9"), files["f9"])
    assert run(cache).stdout.split() == [str(sum(map(len, files.values()))), "0", "10"]


def test_again_starts_anew_and_another_selection_too(cache: Path):
    make(cache, {f"f{number}": random.Random(number).randbytes(1000 + number) for number in range(10)})
    assert run(cache, "verify.marked:4").returncode == -signal.SIGKILL
    assert verify(cache, [RepoId("org/name")]).skipped == 0
    assert verify(cache, again=True).skipped == 0
    assert verify(cache).skipped == 0


def test_an_interrupt_keeps_what_was_done(cache: Path, monkeypatch: pytest.MonkeyPatch):
    make(cache, {f"f{number}": random.Random(number).randbytes(1000) for number in range(30)})
    turns = iter(range(1000))

    def interrupted(outcome: reading.Outcome) -> list[Finding]:
        if next(turns) == 10:
            raise KeyboardInterrupt
        return judge(outcome)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(integrity, "judge", interrupted)
        verify(cache, jobs=2)
    found = verify(cache)
    assert found.ok and (found.checked, found.skipped, found.bytes) == (30, 10, 20_000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_side_file_that_blocks_or_leads_elsewhere_says_nothing(cache: Path, tmp_path: Path):
    paths = make(cache, {"x": b"x"}, style="moved", tree=False)
    paths.blobs.mkdir(exist_ok=True)
    os.mkfifo(paths.blobs / "pipe.etag")
    (tmp_path / "elsewhere").write_text(git_sha1(b"x"))
    (paths.blobs / "link.etag").symlink_to(tmp_path / "elsewhere")
    assert kinds(verify(cache)) == ["unknown"]


def test_names_that_only_some_systems_hold_are_verified(cache: Path):
    files = {"a:b.txt": b"colon", "README.md": b"large", "readme.md": b"small", "con": WEIGHTS}
    paths = make(cache, files)
    assert verify(cache).ok and kinds(verify(cache)) == []
    spoil(bytes_of(paths, "a:b.txt"), b"colom")
    assert kinds(verify(cache)) == ["damaged"]


def test_a_name_that_is_no_text_makes_a_list_unusable(cache: Path):
    paths = make(cache, FILES)
    tree = json.loads(paths.tree(MAIN).read_text())
    tree["files"]["\ud800"] = tree["files"]["config.json"]
    paths.tree(MAIN).write_text(json.dumps(tree))
    assert kinds(verify(cache)) == ["tree"]
