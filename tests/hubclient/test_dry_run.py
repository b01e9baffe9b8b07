"""The plan for people: nothing is cut or broken, on a narrow screen as little as on a wide one."""

from __future__ import annotations

import checkpoints
import pytest
from rich.console import Console

from hubclient import Checkpoint
from hubclient.cli import dryrun
from hubclient.plan import Plan


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    source = checkpoints.llama(tmp_path_factory.mktemp("source") / "tiny-llama")
    return Checkpoint.from_pretrained(source).plan("out-{type}.gguf", format="gguf", type=["f16", "q8_0"])


def shown(plan: Plan, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setattr(dryrun, "console", lambda: Console(width=width, markup=False, emoji=False, highlight=False))
    dryrun.print_steps(plan)
    return capsys.readouterr().out.splitlines()


def test_eighty_columns_hold_two_lines_for_each_tensor(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    lines = shown(plan, 80, monkeypatch, capsys)
    assert max(map(len, lines)) <= 80
    assert len(lines) == sum(3 + 2 * len(output.steps) for output in plan.outputs)
    at = next(at for at, line in enumerate(lines) if line.startswith("blk.1.attn_k.weight "))
    assert lines[at].split() == ["blk.1.attn_k.weight", "32x64", "F16", "rounded"]
    assert lines[at + 1].split() == ["model.layers.1.self_attn.k_proj.weight", "(BF16)", "rope"]


def test_a_wide_screen_holds_a_table(plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    lines = shown(plan, 160, monkeypatch, capsys)
    row = next(line for line in lines if "blk.1.attn_k.weight" in line).replace("│", " ").split()
    assert row == ["blk.1.attn_k.weight", "32x64", "F16", "rounded", "model.layers.1.self_attn.k_proj.weight", "(BF16)", "rope"]


def test_of_many_sources_one_is_named():
    told = {"name": "a", "shape": [2, 3], "encoding": "F16", "from": ["x.0", "x.1", "x.2"], "source_encoding": "BF16"}
    assert dryrun._row({**told, "transform": "stack", "fidelity": "exact"})[4] == "x.0 and 2 more (BF16)"
