"""Encoders of ggml's block types against ggml itself: its bytes as recorded, and those it writes now."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libggml import ggml
from reference import DATA, REFERENCE, ROOT

from benchmarks.ggml import encode as encode_as_ggml
from benchmarks.mixtures import importances, kinds, largest_for, mixture
from hubclient.errors import UnsupportedEncoding
from hubclient.formats import codecs
from hubclient.formats import ggml as blocktypes
from hubclient.formats.encodings import BF16, ENCODINGS, F16, F32
from hubclient.formats.model import Encoding

TYPES = [ENCODINGS[name] for name in sorted(blocktypes.ENCODED)]
COLUMNS = 1024
KINDS = tuple(kinds())
UNWEIGHTED = blocktypes.ENCODED - blocktypes.NEEDS_IMPORTANCE
each_type = pytest.mark.parametrize("encoding", TYPES, ids=lambda encoding: encoding.name)


def uses(name: str) -> list[bool]:
    """The ways to encode a type: without importance, with it."""
    return [weighted for weighted, names in ((False, UNWEIGHTED), (True, blocktypes.USES_IMPORTANCE)) if name in names]


each_use = pytest.mark.parametrize(
    ("encoding", "weighted"),
    [
        pytest.param(encoding, weighted, id=encoding.name + weighted * "-weighted")
        for encoding in TYPES
        for weighted in uses(encoding.name)
    ],
)


# What ggml wrote


@cache
def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as entries:
        return {key: entries[key] for key in entries.files}


def recorded(name: str) -> Iterator[tuple[str, np.ndarray, np.ndarray | None, np.ndarray]]:
    """Label, rows, importance and bytes: all of the reference's, or those of its rows that are kept in this repository."""
    if REFERENCE is not None and (REFERENCE / "quant" / "encoded.npz").exists():
        inputs, columns = arrays(REFERENCE / "quant" / "inputs.npz"), arrays(REFERENCE / "quant" / "importance.npz")
        for key, raw in arrays(REFERENCE / "quant" / "encoded.npz").items():
            kind, rows, importance = key.split("/")
            if kind == name:
                yield key, inputs[rows], columns.get(importance), raw
        return
    kept = arrays(DATA / "quant" / "ggml.npz")
    for key, raw in kept.items():
        kind, _, importance = key.partition("/")
        if kind == name:
            yield key, kept["inputs"], kept.get(f"importance/{importance}"), raw


@pytest.mark.parametrize("encoding", [F16, BF16, *TYPES], ids=lambda encoding: encoding.name)
def test_bytes_are_those_that_ggml_wrote(encoding: Encoding):
    entries = list(recorded(encoding.name))
    assert entries
    for label, rows, importance, raw in entries:
        assert (codecs.encode(rows, encoding, importance=importance) == raw).all(), label


@pytest.mark.llama
@each_use
def test_bytes_are_those_that_ggml_writes(encoding: Encoding, weighted: bool):
    random = np.random.default_rng(20)
    for label, importance in (importances(random, COLUMNS) if weighted else {"none": None}).items():
        rows = mixture(random, 2 * len(KINDS), COLUMNS, largest_for(encoding.name))
        expected = encode_as_ggml(ggml(), rows, encoding, importance=importance)
        unequal = (codecs.encode(rows, encoding, importance=importance) != expected).any(axis=1)
        assert not {KINDS[row % len(KINDS)] for row in np.flatnonzero(unequal)}, label


# What comes back

# The largest error in a super-block, over its largest magnitude.
BOUNDS = {
    "Q1_0": 1.0,
    "Q2_0": 0.5,
    "TQ1_0": 0.5,
    "TQ2_0": 0.5,
    "Q2_K": 1.0,
    "Q3_K": 0.5,
    "Q4_0": 0.2,
    "Q4_1": 0.2,
    "Q4_K": 0.2,
    "IQ4_NL": 0.3,
    "IQ4_XS": 0.3,
    "MXFP4": 0.25,
    "NVFP4": 0.2,
    "Q5_0": 0.1,
    "Q5_1": 0.1,
    "Q5_K": 0.1,
    "Q6_K": 0.07,
    "Q8_0": 0.005,
}
# The others choose from codebooks that do not reach every corner: their error's root mean square on normal numbers.
TYPICAL = {"IQ1_S": 0.55, "IQ1_M": 0.6, "IQ2_XXS": 0.4, "IQ2_XS": 0.35, "IQ2_S": 0.3, "IQ3_XXS": 0.25, "IQ3_S": 0.2}


def there_and_back(rows: np.ndarray, encoding: Encoding, weighted: bool) -> np.ndarray:
    importance = np.ones(rows.shape[1], np.float32) if weighted else None
    return codecs.decode(codecs.encode(rows, encoding, importance=importance), encoding, rows.shape[1])


@st.composite
def edge_rows(draw: st.DrawFn) -> np.ndarray:
    """A few numbers, one of them no less than 1/16: below that the scales of some types are rounded away."""
    edges = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 4.0, -4.0, 1e-3, -1e-3, 2.0**-30, 2.0**-149])
    few = [*draw(st.lists(st.floats(-4, 4, width=32) | edges, max_size=5)), draw(st.floats(0.0625, 4, width=32))]
    row = np.array(few, np.float32)[draw(st.lists(st.integers(0, len(few) - 1), min_size=256, max_size=256))]
    row[draw(st.integers(0, 255))] = few[-1] * draw(st.sampled_from([-1, 1]))
    return row[None]


@each_use
@given(row=edge_rows())
@settings(deadline=None, max_examples=25)
def test_what_was_encoded_comes_back_within_its_bound(encoding: Encoding, weighted: bool, row: np.ndarray):
    back = there_and_back(row, encoding, weighted)
    assert np.isfinite(back).all()
    if encoding.name in BOUNDS:
        assert np.abs(back - row).max() <= BOUNDS[encoding.name] * np.abs(row).max() * (1 + 2.0**-9)


@pytest.mark.parametrize("name", TYPICAL)
def test_codebooks_come_close_to_normal_numbers(name: str):
    rows = np.random.default_rng(3).standard_normal((4, COLUMNS), np.float32)
    for weighted in uses(name):
        error = there_and_back(rows, ENCODINGS[name], weighted) - rows
        assert np.sqrt((error**2).mean() / (rows**2).mean()) < TYPICAL[name]


def test_every_type_has_its_bound():
    assert {*BOUNDS, *TYPICAL} == blocktypes.ENCODED and not {*BOUNDS} & {*TYPICAL}


# However rows lie, and however many there are


@each_use
def test_rows_are_encoded_alike_wherever_they_lie(encoding: Encoding, weighted: bool):
    random = np.random.default_rng(4)
    importance = random.random(COLUMNS, np.float32) if weighted else None
    rows = mixture(random, 70, COLUMNS, largest_for(encoding.name))[
        ::7
    ]  # not as many blocks as go side by side, or a multiple of it
    expected = codecs.encode(np.ascontiguousarray(rows), encoding, importance=importance)
    assert (codecs.encode(rows, encoding, importance=importance) == expected).all()
    for start, stop in ((0, 0), (3, 4), (5, 10)):
        part = codecs.encode(rows[start:stop], encoding, importance=importance)
        assert part.shape == (stop - start, encoding.row_bytes(COLUMNS)) and (part == expected[start:stop]).all()
    out = np.full_like(expected, 255)
    assert codecs.encode(rows, encoding, out, importance) is out and (out == expected).all()


@each_use
@pytest.mark.parametrize("source", [BF16, F32, ENCODINGS["Q8_0"]], ids=lambda source: source.name)
def test_transcoding_is_decoding_and_encoding(source: Encoding, encoding: Encoding, weighted: bool):
    columns = 3 * 4096  # five rows in a step, and two
    random = np.random.default_rng(5)
    importance = random.random(columns, np.float32) if weighted else None
    stored = codecs.encode(random.standard_normal((7, columns), np.float32), source)
    values = codecs.decode(stored, source, columns)
    expected = codecs.encode(values, encoding, importance=importance) if source != encoding else stored
    assert (codecs.transcode(stored, source, encoding, columns, importance=importance) == expected).all()
    made, changed = codecs.transcode_counting(stored, source, encoding, columns, importance)
    again = codecs.encode(values, encoding, importance=importance)
    assert (made == again).all()
    assert changed == codecs.count_unlike(values, codecs.decode(again, encoding, columns), source)


# Importance


@pytest.mark.parametrize("name", sorted(blocktypes.NEEDS_IMPORTANCE))
def test_types_that_need_importance_are_refused_without(name: str):
    rows, encoding = np.ones((1, 256), np.float32), ENCODINGS[name]
    assert codecs.can_encode(encoding) and codecs.needs_importance(encoding)
    told = f"^{name} cannot be encoded without an importance matrix$"
    with pytest.raises(UnsupportedEncoding, match=told):
        codecs.encode(rows, encoding)
    with pytest.raises(UnsupportedEncoding, match=told):
        codecs.transcode(rows.view(np.uint8), F32, encoding, 256)


@pytest.mark.parametrize("name", sorted(blocktypes.ENCODED - blocktypes.USES_IMPORTANCE))
def test_importance_makes_no_difference_to_others(name: str):
    random = np.random.default_rng(6)
    rows, importance = mixture(random, len(KINDS), COLUMNS), random.random(COLUMNS, np.float32)
    assert (codecs.encode(rows, ENCODINGS[name], importance=importance) == codecs.encode(rows, ENCODINGS[name])).all()


def test_importance_that_may_not_be_written_is_read():
    random = np.random.default_rng(7)
    rows, importance = mixture(random, len(KINDS), COLUMNS), random.random(COLUMNS, np.float32)
    expected = codecs.encode(rows, ENCODINGS["Q4_0"], importance=importance)
    importance.flags.writeable = False
    assert (codecs.encode(rows, ENCODINGS["Q4_0"], importance=importance) == expected).all()


@pytest.mark.parametrize("importance", [np.ones(32, np.float64), np.ones(64, np.float32), np.ones((1, 32), np.float32)])
def test_importance_of_other_columns_is_refused(importance: np.ndarray):
    with pytest.raises(ValueError, match=r"importance is float32 \[32\]"):
        codecs.encode(np.ones((1, 32), np.float32), ENCODINGS["Q4_0"], importance=importance)


# The kernels


@pytest.mark.parametrize("family", sorted(set(blocktypes.ENCODER_FAMILY.values())))
def test_a_family_has_the_kernels_that_are_promised(family: str):
    module = import_module(f"hubclient.formats.ggml.encoders.{family}")
    names = {name for name, home in blocktypes.ENCODER_FAMILY.items() if home == family}
    assert set(module.ENCODERS) == names & UNWEIGHTED
    assert set(getattr(module, "WEIGHTED", ())) == names & blocktypes.USES_IMPORTANCE


def test_every_type_that_ggml_encodes_has_an_encoder():
    assert set(blocktypes.FAMILY) - {"Q8_1", "Q8_K"} == blocktypes.ENCODED  # those two are for activations
    assert blocktypes.NEEDS_IMPORTANCE < blocktypes.USES_IMPORTANCE < blocktypes.ENCODED


# Compiles two encoders without the cache, whose code cannot be looked at, and prints that of all kernels they are made of.
ASSEMBLY = """
import sys
import numpy as np
from hubclient.formats import codecs
from hubclient.formats.encodings import ENCODINGS

codecs.encode(np.ones((1, 256), np.float32), ENCODINGS["Q4_K"])
codecs.encode(np.ones((1, 256), np.float32), ENCODINGS["Q5_0"], importance=np.ones(256, np.float32))
modules = [module for name, module in sys.modules.items() if name.startswith("hubclient.formats.ggml.encoders.")]
kernels = {id(kernel): kernel for module in modules for kernel in vars(module).values() if hasattr(kernel, "inspect_asm")}
print(*(text for kernel in kernels.values() for text in kernel.inspect_asm().values()))
"""
FUSED = r"\b(vfn?m(add|sub)\w*|fn?m(add|sub)|fml[as])\b"


@pytest.mark.slow
def test_no_multiplication_is_fused_with_an_addition(tmp_path: Path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", ASSEMBLY], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert re.search(r"\bv?f?mul[ps]s\b|\bfmul\b", done.stdout)  # it is the code
    assert not re.search(FUSED, done.stdout)
