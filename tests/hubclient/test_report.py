"""The report on a conversion: numbers that are right and add up, JSON, and a page that stands alone whatever tensors are called."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from running import command

from hubclient import Checkpoint, Quantization
from hubclient.checkpoint import run
from hubclient.deviation import Deviation
from hubclient.errors import EnvironmentFault, OutputExists, UsageError
from hubclient.fidelity import Kept, Outcome
from hubclient.formats import codecs
from hubclient.formats.encodings import ENCODINGS
from hubclient.mix import Share
from hubclient.plan import Plan
from hubclient.report import Report, check_report_path, scale, write_report
from hubclient.report.layers import Place, layers, place
from hubclient.report.page import page
from hubclient.report.values import Error, OutputReport, TensorReport, WorstBlock

EVIL = "<script>alert(1)</script>\"'&{}\u202egpj.exe\x00\ud800\n</style>https://example.org/x.js"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.llama(tmp_path_factory.mktemp("source") / "llama", sizes={"num_hidden_layers": 3})


@pytest.fixture(scope="module")
def done(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Outcome]:
    return convert(source, tmp_path_factory.mktemp("done"))


@pytest.fixture(scope="module")
def report(done: tuple[Plan, Outcome]) -> Report:
    return Report.of(*done)


def convert(source: Path, folder: Path, **options: Any) -> tuple[Plan, Outcome]:
    plan = Checkpoint.from_pretrained(source).plan(
        folder / "{name}-{type}.gguf", format="gguf", type=["Q4_0", "Q8_0"], quantization=Quantization(measure=True)
    )
    return plan, run(plan, **options)


def tensor(name: str, relative: float = 0.07, weights: int = 256, encoding: str = "Q4_K", **fields: Any) -> TensorReport:
    error = Error(relative * 0.02, relative, 0.02, 1 - relative**2 / 2, WorstBlock(relative / 10, 3, 256))
    share = Share(1, weights, ENCODINGS[encoding].nbytes((weights,)))
    return TensorReport(name, (weights,), encoding, "BF16", share, "quantised", error=error, **fields)


def made(*tensors: TensorReport, **fields: Any) -> Report:
    return Report("a", "/a", "gguf", "llama", (OutputReport("/out/a.gguf", "gguf", "Q4_K_M", 999, tensors, **fields),))


def rows(opened: Any, name: str) -> Any:
    ref = opened.tensors[name]
    raw = np.frombuffer(ref.file.read_bytes(), np.uint8, ref.nbytes, ref.offset).reshape(math.prod(ref.shape[:-1]), -1)
    return codecs.decode(raw, ref.encoding, ref.shape[-1]).astype(np.float64)


class Read(HTMLParser):
    """The elements of a page, their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


# Numbers


def test_errors_are_those_of_the_file_against_its_source(source: Path, report: Report) -> None:
    stored = Checkpoint.from_pretrained(source).opened
    for output in report.outputs:
        opened = Checkpoint.from_pretrained(output.path).opened
        (told,) = [one for one in output.tensors if one.name == "blk.1.ffn_down.weight"]
        before, after = rows(stored, "model.layers.1.mlp.down_proj.weight"), rows(opened, told.name)
        off = before - after
        blocks = np.sqrt(np.square(off).reshape(len(off), -1, 32).mean(axis=2))
        row, block = divmod(int(blocks.argmax()), blocks.shape[1])
        assert told.error is not None
        assert told.error.rmse == pytest.approx(np.sqrt(np.square(off).mean()), rel=1e-5)
        assert told.error.relative == pytest.approx(np.sqrt(np.square(off).sum() / np.square(before).sum()), rel=1e-5)
        cosine = (before * after).sum() / np.linalg.norm(before) / np.linalg.norm(after)
        assert told.error.cosine == pytest.approx(cosine, rel=1e-5)
        assert told.error.worst == WorstBlock(pytest.approx(blocks.max(), rel=1e-5), row, block * 32)  # type: ignore[arg-type]
        assert (told.encoding, told.source_encoding, told.shape) == (output.type, "BF16", (64, 96))
        assert told.share.bits_per_weight == {"Q4_0": 4.5, "Q8_0": 8.5}[output.type]


def test_totals_are_sums_over_tensors(report: Report) -> None:
    for output in report.outputs:
        assert len(output.tensors) == output.total.tensors == 30
        assert output.total == tuple(map(sum, zip(*(one.share for one in output.tensors), strict=True)))
        assert output.total == tuple(map(sum, zip(*output.mix.values(), strict=True)))
        measured = [(one.error, one.share.weights) for one in output.tensors if one.error is not None]
        assert output.error is not None and output.measured == sum(weights for _, weights in measured)
        squares = sum(error.rmse**2 * weights for error, weights in measured)
        assert output.error.rmse == pytest.approx(math.sqrt(squares / output.measured), rel=1e-5)
        cosine = min(error.cosine for error, _ in measured)
        assert output.lowest_cosine is not None and output.lowest_cosine[0] == cosine
        assert output.size == Path(output.path).stat().st_size > output.total.nbytes


def test_what_is_not_quantised_has_no_error(report: Report) -> None:
    (norm,) = [one for one in report.outputs[0].tensors if one.name == "output_norm.weight"]
    assert (norm.encoding, norm.fidelity, norm.changed, norm.error) == ("F32", "exact", 0, None)
    assert norm.as_json()["rmse"] is None and norm.as_json()["worst_block"] is None


def test_numbers_do_not_depend_on_how_tiles_were_cut(source: Path, report: Report, tmp_path: Path) -> None:
    again = Report.of(*convert(source, tmp_path, jobs=1, max_memory=1))
    assert [one.tensors for one in again.outputs] == [one.tensors for one in report.outputs]
    assert [one.error for one in again.outputs] == [one.error for one in report.outputs]


def test_without_measuring_a_report_still_has_types_and_sizes(source: Path, tmp_path: Path) -> None:
    plan = Checkpoint.from_pretrained(source).plan(tmp_path / "a.gguf", format="gguf", type="Q8_0")
    (output,) = Report.of(plan, run(plan)).outputs
    assert output.error is None and output.lowest_cosine is None and output.as_json()["quantised"] is None
    assert "nothing was quantised" in page(Report("a", "/a", "gguf", None, (output,)))


def test_replaced_numbers_are_counted_apart_from_changed_ones(done: tuple[Plan, Outcome]) -> None:
    plan, outcome = done
    kept = {
        **outcome.tensors[0],
        "blk.0.attn_q.weight": Kept("quantised", 3, 4096, Deviation(1.0, 4.0, 4.0, 3.5, 0.5, 7, 32)),
        "output_norm.weight": Kept("rounded", 5, 64),
    }
    output = Report.of(plan, replace(outcome, tensors=(kept, *outcome.tensors[1:]))).outputs[0]
    told = {one.name: one for one in output.tensors}
    assert output.replaced == told["blk.0.attn_q.weight"].replaced == 3 and told["blk.0.attn_q.weight"].changed is None
    assert told["output_norm.weight"].changed == 5 and told["output_norm.weight"].replaced == 0
    assert told["blk.0.attn_q.weight"].error == Error(0.015625, 0.5, 0.03125, 0.875, WorstBlock(0.707107, 7, 32))


def test_an_error_against_nothing_is_infinite_and_nothing_against_nothing_is_exact() -> None:
    assert Error.of(Deviation(4.0, 0.0, 4.0, 0.0, 1.0), 4).relative == math.inf
    assert Error.of(Deviation(0.0, 0.0, 0.0, 0.0, 0.0), 4) == Error(0.0, 0.0, 0.0, 1.0, WorstBlock(0.0, 0, 0))
    assert Error.of(Deviation(), 0).worst is None


def test_a_cosine_that_is_no_number_is_the_lowest() -> None:
    odd = tensor("odd")
    assert odd.error is not None
    odd = replace(odd, error=replace(odd.error, cosine=math.nan))
    lowest = OutputReport("a", "gguf", "Q4_K", 1, (tensor("a"), odd, tensor("b"))).lowest_cosine
    assert lowest is not None and lowest[1] == "odd"


# JSON


def test_json_comes_back_as_it_was(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())
    assert found == json.loads(json.dumps(report.as_json()))
    assert (found["name"], found["architecture"], [one["type"] for one in found["outputs"]]) == (
        "llama",
        "llama",
        ["Q4_0", "Q8_0"],
    )
    first = found["outputs"][0]
    assert first["total"]["bytes"] == sum(one["bytes"] for one in first["tensors"])
    assert first["total"]["tensors"] == sum(one["tensors"] for one in first["mix"].values()) == len(first["tensors"])
    assert first["quantised"]["lowest_cosine"]["cosine"] == min(one["cosine"] for one in first["tensors"] if one["cosine"])
    assert os.listdir(tmp_path) == ["report.json"]


def test_json_is_strict_where_numbers_are_none_and_names_no_text(tmp_path: Path) -> None:
    write_report(made(tensor(EVIL, math.nan), tensor("b", math.inf)), tmp_path / "r.json")
    told = json.loads((tmp_path / "r.json").read_bytes(), parse_constant=pytest.fail)["outputs"][0]["tensors"]
    assert told[0]["name"] == EVIL and told[0]["rmse"] == "NaN" and told[1]["relative_rmse"] == "Infinity"


# The page


def test_the_page_holds_every_tensor_and_one_plot_per_output(report: Report) -> None:
    text = page(report)
    read = Read(text)
    told = "".join(read.texts)
    assert all(one.name in told for output in report.outputs for one in output.tensors)
    assert read.tags.count("figure") == read.tags.count("section") == 2 and read.tags.count("h1") == 1
    assert len(re.findall(r'<circle cx="[^"]*" cy="[^"]*"><title>', text)) == 2 * 3 * 7  # outputs, blocks, roles
    assert "blk.2.attn_q.weight: " in told and "prefers-color-scheme: dark" in text and 'name="viewport"' in text


def test_the_page_needs_nothing_else_and_forbids_it(report: Report) -> None:
    text = page(report)
    names = {name for name, _ in Read(text).attributes}
    assert "http" not in text.replace("http-equiv", "") and "url(" not in text and "@import" not in text
    assert not names & {"src", "srcset", "style", "xlink:href"} and "default-src 'none'" in text
    assert all(str(value).startswith("#") for name, value in Read(text).attributes if name == "href")


def test_hostile_text_is_shown_and_does_nothing() -> None:
    def read_of(one: str, two: str, told: str) -> Read:
        written = page(made(tensor(one), tensor(two), losses=(told,), notes=(told,), dropped=(told,)))
        return Read(written.replace("<wbr>", ""))  # where long names may be broken

    harmless, read = read_of("blk.3.a.weight", "b", "x"), read_of(f"blk.3.{EVIL}", EVIL, EVIL)
    assert read.tags == harmless.tags
    assert [name for name, _ in read.attributes] == [name for name, _ in harmless.attributes]
    assert "<script>alert(1)</script>\"'&{}\\u202egpj.exe\\x00\\ud800\\n</style>https://example.org/x.js" in "".join(read.texts)
    everywhere = Report(EVIL, EVIL, EVIL, EVIL, (OutputReport(EVIL, EVIL, EVIL, 1, ()),))
    assert Read(page(everywhere)).tags.count("script") == 1


def test_a_page_of_odd_numbers_is_written(tmp_path: Path) -> None:
    odd = (
        tensor("blk.0.a.weight", math.nan),
        tensor("blk.7.a.weight", math.inf),
        tensor("blk.8.a.weight", 0.0),
        tensor("o", 1e-30),
    )
    write_report(made(*odd), tmp_path / "r.HTML")
    places = re.findall(r'<circle cx="([^"]*)" cy="([^"]*)"><title>', (tmp_path / "r.HTML").read_text())
    assert len(places) == 3 and all(math.isfinite(float(value)) for pair in places for value in pair)
    assert "<svg" not in page(made()) and "Outputs" not in page(made())


def test_a_role_looks_the_same_in_all_outputs() -> None:
    one, two = made(tensor("blk.0.a.weight"), tensor("blk.0.b.weight")), made(tensor("blk.0.b.weight"))
    text = page(replace(one, outputs=(*one.outputs, *two.outputs)))
    assert len(re.findall(r'<li data-role="1"><svg.*?</svg>b</li>', text)) == 2


# Layers and scales


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("blk.12.attn_q.weight", Place("blk", "attn_q", 12)),
        ("model.layers.3.mlp.experts.17.up_proj.weight", Place("model.layers", "mlp.experts.*.up_proj", 3)),
        ("enc.blk.0.ffn_up.weight", Place("enc.blk", "ffn_up", 0)),
        ("token_embd.weight", None),
        ("mm.0.weight", None),
        ("blk.٣.attn_q.weight", None),
        ("blk.99999999999999999999.attn_q.weight", None),
    ],
)
def test_a_name_says_block_and_role(name: str, where: Place | None) -> None:
    assert place(name) == where


def test_experts_of_a_block_are_one_point_by_their_sizes() -> None:
    found = layers([tensor("m.0.experts.0.up.weight", 0.3, 256), tensor("m.0.experts.1.up.weight", 0.1, 768)])
    ((role, (point,)),) = found.roles.items()
    assert role == "experts.*.up" and point.relative == pytest.approx(math.sqrt((0.09 + 3 * 0.01) / 4)) and not found.apart


def test_stacks_of_blocks_are_told_apart() -> None:
    found = layers([tensor("enc.blk.0.q.weight"), tensor("dec.blk.0.q.weight"), tensor("out.weight")])
    assert list(found.roles) == ["enc.blk q", "dec.blk q"] and list(found.apart) == ["out.weight"]


def test_errors_far_apart_are_on_a_logarithmic_scale() -> None:
    near, far = scale.of_errors([0.06, 0.07]), scale.of_errors([0.006, 0.07])
    assert not near.logarithmic and near.low == 0 and near.at(near.high) == 1
    assert far.logarithmic and far.ticks == pytest.approx((0.005, 0.01, 0.02, 0.05, 0.1)) and far.at(0.005) == 0
    assert far.at(math.nan) == far.at(math.inf) == 1 and far.at(0.0) == 0
    assert scale.of_errors([5e-324, 0.06, 0.07, math.inf, math.nan]) == near


@pytest.mark.parametrize(("low", "high"), [(2e-9, 1e300), (1e-8, 1.0), (0.07, 0.07), (1e-7, 3e-7)])
def test_scales_hold_what_they_are_for_with_few_ticks(low: float, high: float) -> None:
    found = scale.of_errors([low, high])
    assert found.low <= low <= high <= found.high and 2 <= len(found.ticks) <= 14
    assert 0 <= found.at(low) <= found.at(high) <= 1


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 31), (3, 60), (0, 999_999)])
def test_blocks_have_few_whole_ticks(first: int, last: int) -> None:
    found = scale.of_blocks([first, last])
    assert 1 <= len(found.ticks) <= 10 and all(tick == int(tick) and first <= tick <= last for tick in found.ticks)


# The file


@pytest.mark.parametrize("name", ["report", "report.txt", "report.htm", "report.json.gz"])
def test_another_ending_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.json or \.html"):
        check_report_path(tmp_path / name)
    with pytest.raises(UsageError, match=r"\.json or \.html"):
        write_report(made(), tmp_path / name)


def test_what_is_there_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    check_report_path(path)
    check_report_path(tmp_path / "new" / "folder" / "r.html")
    path.write_text("{}")
    with pytest.raises(OutputExists):
        check_report_path(path)
    check_report_path(path, force=True)
    (tmp_path / "f.json").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_report_path(tmp_path / "f.json", force=True)


def test_where_no_file_can_be_the_environment_is_at_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault):
        check_report_path(tmp_path / "file" / "r.json")
    with pytest.raises(EnvironmentFault):
        write_report(made(), tmp_path / "file" / "r.json")
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    path.write_text("before")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(EnvironmentFault, match="No space left"):
        write_report(made(), path)
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["r.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("before")
    (tmp_path / "r.json").symlink_to("real.json")
    write_report(made(tensor("a")), tmp_path / "r.json")
    assert (tmp_path / "r.json").is_symlink() and json.loads((tmp_path / "real.json").read_text())["outputs"]


def test_the_command_writes_a_report(source: Path, tmp_path: Path) -> None:
    options = ("--to", "gguf", "--type", "Q8_0")
    refused = command("convert", source, "a.gguf", *options, "--report", "r.pdf", cwd=tmp_path)
    assert refused.returncode == 2 and "r.pdf" in refused.stderr and os.listdir(tmp_path) == []
    done = command("convert", source, "a.gguf", *options, "--report", "r.html", cwd=tmp_path)
    assert done.returncode == 0 and sorted(os.listdir(tmp_path)) == ["a.gguf", "r.html"]
    assert "relative RMSE" in (tmp_path / "r.html").read_text()
