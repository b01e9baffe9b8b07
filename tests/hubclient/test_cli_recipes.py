"""`hubclient recipes` as people and programs call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import command

from hubclient.formats.gguf.recipes import RECIPES


def test_all_recipes_are_listed(tmp_path: Path):
    done = command("recipes", "ls", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    heading, *lines = done.stdout.splitlines()
    assert heading.split("  ")[0] == "recipe" and {line.split()[0] for line in lines[:-1]} == set(RECIPES)


def test_a_program_gets_one_object(tmp_path: Path):
    done = command("recipes", "ls", "--json", cwd=tmp_path)
    found = {row["name"]: row for row in json.loads(done.stdout)["recipes"]}
    assert found["Q4_K_M"]["bits"] == pytest.approx(4.89, abs=0.01) and found["IQ2_XXS"]["needs_importance"]


def test_a_recipe_is_shown_in_words_and_as_data(tmp_path: Path):
    done = command("recipes", "show", "q4_k", cwd=tmp_path)
    assert (
        done.returncode == 0
        and done.stdout.startswith("Q4_K_M: 4 bits")
        and "  Q8_0    attn_v or attn_k, with 8 experts" in done.stdout
    )
    told = json.loads(command("recipes", "show", "Q4_K_M", "--json", cwd=tmp_path).stdout)
    assert (told["type"], told["file_type"]) == ("Q4_K", 15)


def test_a_file_of_ones_own_is_shown_too(tmp_path: Path):
    (tmp_path / "mine.toml").write_text('base = "Q4_K_M"\n[[rule]]\nrole = "attn_v"\ntype = "Q8_0"\n')
    done = command("recipes", "show", "mine.toml", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("mine: 4 bits") and "  Q8_0    attn_v\n" in done.stdout


@pytest.mark.parametrize(
    ("name", "code", "needle"),
    [
        ("Q4_K_N", 3, "did you mean"),
        ("MXFP4", 2, "no recipe"),
        ("none.toml", 5, "none.toml: does not exist"),
        ("bad.toml", 2, "typ"),
    ],
)
def test_what_is_no_recipe_ends_with_one_sentence(tmp_path: Path, name: str, code: int, needle: str):
    (tmp_path / "bad.toml").write_text("typ = 3")
    done = command("recipes", "show", name, cwd=tmp_path)
    assert done.returncode == code and done.stdout == "" and needle in done.stderr
    assert len(done.stderr.splitlines()) <= 2
