"""docs/add-an-architecture.md: the package that it shows works as it stands, and it explains every word of the language."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from reference import ROOT

import hubclient.architectures as language
from hubclient.architectures import Architecture, Layout, Placement
from hubclient.testing import ArchitectureSuite

PAGE = (ROOT / "docs" / "add-an-architecture.md").read_text()
COMMANDS = next(iter(re.findall(r"```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))).splitlines()
CODE = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL))
ROWS = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in PAGE.splitlines() if line.startswith("| ")]
# What examples in the tables stand for.
TABLES = ("ATTENTION", "MLP", "EXPERTS", "DENSE", "PACKED", "ENDS")
NAMES: dict[str, Any] = {name: {f"{name}.{{i}}.weight": f"{name}.{{i}}"} for name in TABLES} | {
    "Q": "q", "KV": "kv", "GGUF": Layout.of({"x": "y"}), "SIZES": (),
}  # fmt: skip


@pytest.fixture
def made(run, willow_site, tmp_path: Path) -> Path:
    """A small random checkpoint, as the page makes it."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, willow_site]))}
    (line,) = [command for command in COMMANDS if "write_example" in command]
    subprocess.run([sys.executable, *shlex.split(line)[1:]], cwd=tmp_path, env=env, check=True, timeout=120)
    return tmp_path / "my-willow"


def test_the_declaration_has_less_than_forty_lines(willow):
    assert len((willow / "hubclient_willow.py").read_text().splitlines()) < 40


def test_every_command_of_the_page_works(run, willow, willow_site, made, tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, willow_site])), "HUBCLIENT_CONFIG_DIR": str(tmp_path)}
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        if program == "hubclient":
            done = run(*arguments, sites=[willow_site])
            assert done.returncode == 0, (command, done.stdout, done.stderr)
        elif arguments == ["-m", "pytest"]:
            call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
            tested = subprocess.run(call, cwd=willow, env=env, capture_output=True, text=True, timeout=300)
            assert tested.returncode == 0 and "passed" in tested.stdout, tested.stdout
        else:
            assert command == "pip install ." or "write_example" in command


@pytest.mark.parametrize("first", ["safetensors", "gguf", "mlx"])
def test_it_goes_from_every_format_to_every_format(run, willow_site, made, tmp_path, first):
    source = tmp_path / f"first.{first}"
    assert run("convert", made, source, "--to", first, sites=[willow_site]).returncode == 0
    for second in ("safetensors", "gguf", "mlx"):
        target = tmp_path / f"second.{second}"
        there = run("convert", source, target, "--to", second, "--strict", sites=[willow_site])
        assert there.returncode == 0, there.stderr
        same = run("verify", target, "--against", made, sites=[willow_site])
        assert same.returncode == 0, same.stdout + same.stderr


def test_a_declaration_that_does_not_work_fails_the_kit_with_exit_code_1(run, willow, willow_site, tmp_path):
    site = tmp_path / "site"
    shutil.copytree(willow_site, site)
    (site / "hubclient_willow.py").write_text(
        (willow / "hubclient_willow.py").read_text().replace('u32("experts", "expert_count"), ', "")
    )
    done = run("plugins", "test", "hubclient-willow", sites=[site])
    assert done.returncode == 1
    assert "config: experts is None where a positive integer is needed" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stderr


def test_packed_for_mlx_it_still_is_the_same_model(run, willow_site, made, tmp_path):
    assert run("convert", made, "packed", "--to", "mlx", "--type", "4bit", sites=[willow_site]).returncode == 0
    assert run("verify", "packed", "--against", made, sites=[willow_site]).returncode == 0


@pytest.mark.parametrize("word", [word for word in language.__all__ if word not in ("Fact", "Expr", "Pairs", "Llama3Factors")])
def test_every_word_of_the_language_is_explained(word):
    assert any(re.search(rf"\b{word}\b", code) for code in CODE)


@pytest.mark.parametrize("kind", [Architecture, Placement], ids=lambda kind: kind.__name__)
def test_every_field_is_explained(kind):
    named = {word for code in CODE for word in re.findall(r"\w+", code)}
    assert {field.name for field in fields(kind)} <= named


@pytest.mark.parametrize("option", [name for name in inspect.signature(Layout.of).parameters if name != "tables"])
def test_every_option_of_a_layout_is_explained(option):
    assert f"`{option}=`" in PAGE or f"{option}=" in PAGE


def test_every_attribute_of_the_suite_is_explained():
    table = PAGE[PAGE.index("| attribute |") : PAGE.index("`hubclient plugins test NAME`")]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(ArchitectureSuite.__annotations__)


def evaluated(text: str) -> Any:
    return eval(text, {**vars(language), **NAMES})


def examples() -> list[str]:
    """Examples in the tables that are calls of words of the language, or lines of tables."""
    found = [code for row in ROWS if len(row) == 3 for code in re.findall(r"`([^`]+)`", row[2])]
    return [code for code in found if "..." not in code and (">>" in code or code.partition("(")[0] in language.__all__)]


@pytest.mark.parametrize("example", examples())
def test_examples_in_the_tables_are_python_that_works(example):
    ast.parse(f"{{{example}}}" if re.match(r"""["(].*["')]: """, example) else example)
    if re.match(r"""["(].*["')]: """, example):
        assert Layout.of(evaluated(f"{{{example}}}")).rules
    else:
        assert evaluated(example) is not None


def test_there_are_examples():
    assert len(examples()) > 25
