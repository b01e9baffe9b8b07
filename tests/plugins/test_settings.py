"""What the user decided survives, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.errors import DamagedInput, EnvironmentFault
from hubclient.plugins.settings import Settings, read_settings, settings_path, write_settings

NAMES = st.text(min_size=1, max_size=20)


@given(disabled=st.frozensets(NAMES), prefer=st.dictionaries(NAMES, NAMES))
def test_settings_are_read_as_they_were_written(tmp_path_factory, disabled, prefer):
    path = tmp_path_factory.mktemp("settings") / "plugins.json"
    write_settings(path, Settings(disabled, prefer))
    assert read_settings(path) == Settings(disabled, prefer)
    assert [entry.name for entry in path.parent.iterdir()] == ["plugins.json"]


def test_no_file_is_no_settings(tmp_path):
    assert read_settings(tmp_path / "absent" / "plugins.json") == Settings()


def test_enabling_and_disabling_undo_each_other():
    assert Settings().disable("a-plugin").enable("A_plugin") == Settings()
    assert Settings().enable("a", "hf.Foo").prefer == {"hf.Foo": "a"}
    assert Settings().enable("a", "hf.Foo").disable("a") == Settings(frozenset({"a"}))
    assert Settings().enable("a", "hf.Foo").enable("b", "hf.Foo").prefer == {"hf.Foo": "b"}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe", b"[]", b'"x"', b"null", b'{"disabled": "x"}', b'{"disabled": [1]}', b'{"prefer": []}',
        b'{"prefer": {"hf.X": null}}', b"[" * 100_000, b'{"disabled": [' + b'"x",' * 400_000 + b'"x"]}', b"9" * 5000,
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_sentence_that_names_it(tmp_path, content):
    path = tmp_path / "plugins.json"
    path.write_bytes(content)
    with pytest.raises(DamagedInput) as caught:
        read_settings(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unusable_folder_is_a_fault_of_the_environment(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        write_settings(tmp_path / "file" / "plugins.json", Settings())
    (tmp_path / "plugins.json").mkdir()
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        read_settings(tmp_path / "plugins.json")


def test_a_failed_write_leaves_the_old_settings(tmp_path, monkeypatch):
    path = tmp_path / "plugins.json"
    write_settings(path, Settings().disable("a"))

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(EnvironmentFault, match="No space left"):
        write_settings(path, Settings())
    assert json.loads(path.read_text())["disabled"] == ["a"]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_folder_can_be_chosen(tmp_path):
    assert settings_path({"HUBCLIENT_CONFIG_DIR": str(tmp_path)}) == tmp_path / "plugins.json"
    assert settings_path({}).parent.name == "hubclient"
