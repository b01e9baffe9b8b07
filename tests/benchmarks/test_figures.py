"""What is measured is told as it was."""

from __future__ import annotations

import json

import pytest

from benchmarks.__main__ import BENCHMARKS, MARKS, main, with_table
from benchmarks.figures import Figure, markdown, ratio

RUNS = {"them": [12.0, 10.0, 11.0], "us": [2.5, 2.0, 2.2]}


def test_a_ratio_is_one_of_medians() -> None:
    figure = ratio("speed", "them", "us", RUNS, 4.0, at_least=True)
    assert figure.value == pytest.approx(5.0)
    assert figure.passed


@pytest.mark.parametrize(
    ("value", "target", "at_least", "passed"),
    [
        (4.0, 4.0, True, True),
        (3.9, 4.0, True, False),
        (3.0, 3.0, False, True),
        (3.1, 3.0, False, False),
        (1.0, None, False, None),
    ],
)
def test_a_figure_meets_its_target_or_not(value: float, target: float | None, at_least: bool, passed: bool | None) -> None:
    assert Figure("x", value, "s", target, at_least).passed is passed


def test_figures_survive_json() -> None:
    figure = ratio("speed", "them", "us", RUNS, 4.0, at_least=True)
    assert Figure.from_json(json.loads(json.dumps(figure.as_json()))) == figure
    assert figure.as_json()["passed"] is True


def test_the_table_tells_target_median_and_range() -> None:
    lines = markdown([ratio("speed", "them", "us", RUNS, 4.0, at_least=True), Figure("modules", 2, "modules", 0)]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2] == ["speed", "at least 4 x", "5 x", "them 11 (10-12) s, us 2.20 (2-2.50) s", "pass"]
    assert cells[3] == ["modules", "at most 0 modules", "2 modules", "", "FAIL"]
    assert len({len(line) for line in lines}) == 1


def test_a_table_takes_the_place_of_the_one_before() -> None:
    page = f"before\n{MARKS[0]}old\n{MARKS[1]}after\n"
    assert with_table(page, "new\n") == f"before\n{MARKS[0]}\nnew\n\n{MARKS[1]}after\n"
    assert with_table(with_table(page, "new\n"), "newer\n") == with_table(page, "newer\n")
    with pytest.raises(ValueError, match="no place"):
        with_table("a page", "new\n")


def test_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["nonsense"])
    assert exit_.value.code == 2
    assert "nonsense" in capsys.readouterr().err
    assert "convert" in BENCHMARKS
