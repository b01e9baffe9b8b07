"""What the mirror answers, header by header."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess

import pytest
from hubserver import HubServer

WEIGHTS = bytes(range(256)) * 8192  # 2 MiB


@pytest.fixture
def commit(hub):
    return hub.repo("org/name").commit(
        {"config.json": b'{"model_type": "llama"}', "a/b c.txt": "text", "model.safetensors": WEIGHTS}
    )


def test_a_small_file_comes_at_once_named_by_gits_digest(hub, commit, ask):
    for method in ("HEAD", "GET"):
        got = ask(hub.endpoint, "/org/name/resolve/main/a/b%20c.txt", method)
        digest = hashlib.sha1(b"blob 4\0text").hexdigest()
        assert (got.status, got.headers["ETag"], got.headers["Content-Length"]) == (200, f'"{digest}"', "4")
        assert got.headers["X-Repo-Commit"] == commit and got.headers["Accept-Ranges"] == "bytes"
        assert got.body == (b"text" if method == "GET" else b"")


def test_a_large_file_is_redirected_to_the_other_origin_which_needs_no_token(hub, commit, ask):
    got = ask(hub.endpoint, "/org/name/resolve/main/model.safetensors", "HEAD")
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    assert got.status == 302 and got.headers["Location"].startswith(f"{hub.cdn}/")
    assert got.headers["X-Linked-Etag"] == got.headers["ETag"] == f'"{digest}"'
    assert (got.headers["X-Linked-Size"], got.headers["X-Repo-Commit"]) == (str(len(WEIGHTS)), commit)
    stored = ask(hub.cdn, got.headers["Location"].removeprefix(hub.cdn))
    assert (stored.status, stored.body, stored.headers["ETag"]) == (200, WEIGHTS, f'"{digest}"')


def test_the_other_origin_serves_only_links_that_were_signed(hub, commit, ask):
    place = ask(hub.endpoint, "/org/name/resolve/main/model.safetensors").headers["Location"].removeprefix(hub.cdn)
    path, signature = place.split("?")
    assert ask(hub.cdn, path).status == ask(hub.cdn, f"{path}?signature=é0".replace("é", "%C3%A9")).status == 403
    assert ask(hub.cdn, f"{path.replace('model', 'other')}?{signature}").status == 403


def test_without_another_origin_the_hub_itself_serves_large_files(ask):
    with HubServer(cdn=False) as hub:
        hub.repo("org/name").commit({"model.safetensors": WEIGHTS})
        got = ask(hub.endpoint, "/org/name/resolve/main/model.safetensors")
        assert hub.cdn is None and (got.status, got.body) == (200, WEIGHTS)
        assert got.headers["X-Linked-Size"] == str(len(WEIGHTS))


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=1048570-1048580", 1048570, 1048581),
        ("bytes=2097150-", 2097150, 2097152),
        ("bytes=-7", 2097145, 2097152),
        ("bytes=10-99999999", 10, 2097152),
        ("bytes=-99999999", 0, 2097152),
    ],
)
def test_one_range(asked, start, stop, ask):
    with HubServer(cdn=False) as hub:
        hub.repo("org/name").commit({"model.safetensors": WEIGHTS})
        got = ask(hub.endpoint, "/org/name/resolve/main/model.safetensors", Range=asked)
    assert (got.status, got.body) == (206, WEIGHTS[start:stop])
    assert got.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(WEIGHTS)}"


@pytest.mark.parametrize(
    "asked", ["bytes=9-3", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4", "bytes=" + "9" * 5000 + "-"]
)
def test_what_is_no_single_range_is_passed_over(hub, commit, ask, asked):
    got = ask(hub.endpoint, "/org/name/resolve/main/a/b%20c.txt", Range=asked)
    assert (got.status, got.body) == (200, b"text")


def test_a_range_beyond_the_end_is_refused_with_the_size(hub, commit, ask):
    got = ask(hub.endpoint, "/org/name/resolve/main/a/b%20c.txt", Range="bytes=4-")
    assert (got.status, got.headers["Content-Range"]) == (416, "bytes */4")


def test_conditions_compare_the_etag(hub, commit, ask):
    path = "/org/name/resolve/main/a/b%20c.txt"
    etag = ask(hub.endpoint, path).headers["ETag"]
    same = ask(hub.endpoint, path, If_None_Match=f'"x", W/{etag}')
    assert (same.status, same.body, same.headers["ETag"]) == (304, b"", etag)
    assert ask(hub.endpoint, path, If_None_Match='"x"').status == 200
    assert ask(hub.endpoint, path, Range="bytes=1-2", If_Range=etag).body == b"ex"
    assert ask(hub.endpoint, path, Range="bytes=1-2", If_Range='"x"').body == b"text"


def test_a_revision_is_a_branch_a_tag_a_pull_request_or_the_start_of_a_commit(hub, commit, ask):
    repo = hub.repo("org/name")
    repo.branch("feature/x", commit)
    repo.tag("v1.0", commit)
    repo.open_pull("refs/heads/main")
    later = repo.commit({"config.json": b"{}"})
    for revision in ("feature%2Fx", "v1.0", "refs%2Fpr%2F1", "refs/pr/1", commit, commit[:7]):
        assert ask(hub.endpoint, f"/org/name/resolve/{revision}/config.json").headers["X-Repo-Commit"] == commit, revision
    assert ask(hub.endpoint, "/api/models/org/name/revision/main").body.find(later.encode()) > 0


@pytest.mark.parametrize(
    "path", ["/api/models/org/name/revision/{}", "/api/models/org/name/tree/{}", "/org/name/resolve/{}/config.json"]
)
@pytest.mark.parametrize("revision", ["nope", "abcdef1", "a%2Fb", "%00%0d%0aX%3A y".replace(" ", "%20"), "%E2%82%AC"])
def test_an_unknown_revision(hub, commit, ask, path, revision):
    got = ask(hub.endpoint, path.format(revision))
    assert (got.status, got.headers["X-Error-Code"]) == (404, "RevisionNotFound")
    assert got.headers["X-Error-Message"].isprintable()


def test_an_unknown_file_names_the_commit(hub, commit, ask):
    got = ask(hub.endpoint, "/org/name/resolve/main/none.txt", "HEAD")
    assert (got.status, got.headers["X-Error-Code"], got.headers["X-Repo-Commit"]) == (404, "EntryNotFound", commit)
    assert ask(hub.endpoint, "/api/models/org/name/tree/main/none").headers["X-Error-Code"] == "EntryNotFound"


def test_strangers_are_not_told_whether_a_repository_is_missing_or_private(hub, ask):
    hub.repo("org/secret", private=True).commit({"a": b"1"})
    token, owner = hub.token("bob"), hub.token("alice", organisations=["org"])
    for path in ("/api/models/org/{}", "/org/{}/resolve/main/a"):
        for name in ("secret", "missing"):
            stranger, bob = ask(hub.endpoint, path.format(name)), ask(hub.endpoint, path.format(name), token=token)
            assert (stranger.status, stranger.headers["X-Error-Code"]) == (401, "RepoNotFound")
            assert (bob.status, bob.headers["X-Error-Code"]) == (404, "RepoNotFound")
        assert ask(hub.endpoint, path.format("secret"), token=owner).status == 200


def test_a_gate_shows_the_repository_and_keeps_its_files(hub, ask):
    repo = hub.repo("org/gated", gated=True)
    repo.commit({"a": b"1"})
    bob, path = hub.token("bob"), "/org/gated/resolve/main/a"
    assert json.loads(ask(hub.endpoint, "/api/models/org/gated").body)["gated"] == "auto"
    stranger, waiting = ask(hub.endpoint, path), ask(hub.endpoint, path, token=bob)
    assert (stranger.status, stranger.headers["X-Error-Code"]) == (401, "GatedRepo")
    assert (waiting.status, waiting.headers["X-Error-Code"]) == (403, "GatedRepo")
    repo.allow("bob")
    assert ask(hub.endpoint, path, token=bob).body == b"1"


def test_a_token_that_nobody_has_is_refused_everywhere(hub, commit, ask):
    for path in ("/api/whoami-v2", "/api/models/org/name", "/org/name/resolve/main/config.json"):
        got = ask(hub.endpoint, path, token="hf_wrong")
        assert (got.status, got.headers["X-Error-Message"]) == (401, "Invalid credentials in Authorization header")


def test_an_old_name_redirects_without_leaving_the_host(hub, commit, ask):
    hub.rename("org/name", "other/new name")
    for path, place in (
        ("/org/name/resolve/main/a/b%20c.txt?download=true", "/other/new%20name/resolve/main/a/b%20c.txt?download=true"),
        ("/api/models/org/name/tree/main", "/api/models/other/new%20name/tree/main"),
    ):
        got = ask(hub.endpoint, path)
        assert (got.status, got.headers["Location"]) == (307, place)
        assert ask(hub.endpoint, place).status == 200


def test_lists_come_page_by_page(ask):
    with HubServer(page_size=3) as hub:
        hub.repo("org/name").commit({f"d{n % 2}/f{n}": b"" for n in range(8)})
        place: str | None = "/api/models/org/name/tree/main?recursive=true"
        pages = []
        while place:
            got = ask(hub.endpoint, place)
            pages.append([item["path"] for item in json.loads(got.body)])
            link = got.headers["Link"]
            assert link is None or (link.startswith(f"<{hub.endpoint}/") and link.endswith('>; rel="next"'))
            place = link and link[1:].partition(">")[0].removeprefix(hub.endpoint)
    assert pages == [["d0", "d0/f0", "d0/f2"], ["d0/f4", "d0/f6", "d1"], ["d1/f1", "d1/f3", "d1/f5"], ["d1/f7"]]


@pytest.mark.parametrize("query", ["limit=x", "cursor=-1", "cursor=%C2%B2", "cursor=" + "9" * 5000])
def test_pages_are_counted_in_numbers(hub, commit, ask, query):
    assert ask(hub.endpoint, f"/api/models/org/name/tree/main?{query}").status == 400


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_folders_have_the_ids_that_git_gives_them(hub, ask, tmp_path):
    files = {"a/b/c.txt": b"1", "a/b.txt": b"2", "a/b-c/d": b"3", "a/z": b"", "é": b"4"}
    hub.repo("org/name").commit(files)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(tmp_path), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    listed = json.loads(ask(hub.endpoint, "/api/models/org/name/tree/main?recursive=true").body)
    root = git("write-tree")
    for item in listed:
        assert item["oid"] == git("rev-parse", f"{root}:{item['path']}"), item["path"]


def test_paths_are_asked_for_in_a_form_or_in_json(hub, commit, ask):
    import http.client

    def told(body: bytes, kind: str) -> tuple[int, list[str]]:
        connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"))
        connection.request("POST", "/api/models/org/name/paths-info/main", body, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, [item["path"] for item in json.loads(answer.read()) if answer.status == 200]

    form, plain = "application/x-www-form-urlencoded", "application/json"
    assert told(b"paths=a%2F&paths=config.json&paths=none&expand=false", form) == (200, ["a", "config.json"])
    assert told(b'{"paths": ["config.json", 5]}', plain) == (200, ["config.json"])
    assert told(b"", form) == (200, []) and told(b'{"paths": 1}', plain) == told(b"{", plain) == (400, [])
    assert told(b"paths=x&" * (3 << 20), form) == (413, [])


def test_datasets_and_spaces_live_beside_models(hub, ask):
    for kind in ("model", "dataset", "space"):
        hub.repo("org/name", type=kind).commit({"README.md": kind})
    for prefix, kind in (("", "model"), ("datasets/", "dataset"), ("spaces/", "space")):
        assert ask(hub.endpoint, f"/{prefix}org/name/resolve/main/README.md").body == kind.encode()
        assert json.loads(ask(hub.endpoint, f"/api/{kind}s/org/name").body)["id"] == "org/name"


def test_a_name_without_a_namespace(hub, ask):
    hub.repo("gpt2").commit({"config.json": b"{}", "onnx/config.json": b"[]"})
    assert ask(hub.endpoint, "/gpt2/resolve/main/onnx/config.json").body == b"[]"
    assert json.loads(ask(hub.endpoint, "/api/models/gpt2").body)["author"] is None
    assert ask(hub.endpoint, "/api/models/gpt2/tree/main/onnx").status == 200


def test_a_broken_config_is_served_but_not_summarised(hub, ask):
    hub.repo("org/name").commit({"config.json": b"{nope"})
    assert "config" not in json.loads(ask(hub.endpoint, "/api/models/org/name").body)
    assert ask(hub.endpoint, "/org/name/resolve/main/config.json").body == b"{nope"


def test_a_file_that_became_shorter_is_never_passed_off_as_whole(hub, ask, tmp_path):
    (tmp_path / "x.bin").write_bytes(b"0123456789")
    hub.repo("org/name").commit({"x.txt": tmp_path / "x.bin"})
    (tmp_path / "x.bin").write_bytes(b"0123")
    got = ask(hub.endpoint, "/org/name/resolve/main/x.txt")
    assert not got.whole and got.body == b"0123"


def test_a_search_fits_words_authors_and_labels(hub, ask):
    hub.repo("a/llama-one", labels=("text-generation",), downloads=5).commit({"m.gguf": b"1"})
    hub.repo("b/llama-two", downloads=9).commit({"m.safetensors": b"1", "config.json": b"{}"})
    hub.repo("a/secret-llama", private=True).commit({"m.gguf": b"1"})

    def found(query: str, token: str | None = None) -> list[str]:
        return [item["id"] for item in json.loads(ask(hub.endpoint, f"/api/models?{query}", token=token).body)]

    assert found("search=LLAMA") == found("") == ["a/llama-one", "b/llama-two"]
    assert found("search=llama+two") == found("filter=safetensors&filter=transformers") == found("author=b") == ["b/llama-two"]
    assert found("filter=gguf,text-generation") == found("limit=1") == ["a/llama-one"]
    assert found("sort=downloads&expand=likes") == ["b/llama-two", "a/llama-one"]
    assert found("search=secret", hub.token("a")) == ["a/secret-llama"]
