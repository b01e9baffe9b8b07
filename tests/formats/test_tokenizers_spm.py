"""SentencePiece models: our reader and writer of their protocol buffer."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizing import golden_folder

from hubclient.errors import DamagedInput
from hubclient.formats.tokenizers.protobuf import bytes_field, fields, varint, varint_field, varint_of
from hubclient.formats.tokenizers.spm import (
    BPE,
    SentencePieceModel,
    is_tiktoken,
    normalizer_spec,
    parse_model,
    trainer_spec,
    write_model,
)

SPECIAL = {"unk": (0, "<unk>"), "bos": (1, "<s>")}


def model(texts: list[str], **changes: object) -> SentencePieceModel:
    count = len(texts)
    plain = {"scores": [-float(index) for index in range(count)], "types": [2, *[1] * (count - 1)]}
    specs = {"trainer": trainer_spec(BPE, count, False, SPECIAL), "normalizer": normalizer_spec("identity", True, False)}
    return SentencePieceModel(**{"texts": texts, **plain, **specs, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["llama/tokenizer.model", "gemma2/tokenizer.model", "mt5/spiece.model"])
def test_a_model_that_sentencepiece_wrote_is_written_back_byte_for_byte(name: str) -> None:
    folder, file = name.split("/")
    data = (golden_folder(folder) / file).read_bytes()
    assert write_model(parse_model(data, file)) == data


def test_every_truncation_is_one_sentence_that_names_the_file() -> None:
    data = (golden_folder("llama") / "tokenizer.model").read_bytes()
    for length in range(len(data) - 1):
        with pytest.raises(DamagedInput, match=r"^t\.model: is not a whole SentencePiece model") as caught:
            parse_model(data[:length], "t.model")
        assert "\n" not in str(caught.value)


@given(st.lists(st.text(min_size=1, max_size=200), min_size=1, max_size=8, unique=True), st.binary(max_size=300))
def test_what_is_written_is_read_back(texts: list[str], charsmap: bytes) -> None:
    written = model(texts, charsmap=charsmap)
    found = parse_model(write_model(written), "t.model")
    assert list(found.texts) == texts
    assert list(found.scores) == list(written.scores)
    assert list(found.types) == list(written.types)
    assert (found.trainer, found.normalizer, found.charsmap) == (written.trainer, written.normalizer, charsmap)
    assert (found.algorithm, found.add_dummy_prefix, found.remove_extra_whitespaces) == (BPE, True, False)


@settings(max_examples=300)
@given(st.data())
def test_garbled_bytes_are_refused_or_read_but_never_a_crash(data: st.DataObject) -> None:
    whole = bytearray(write_model(model(["<unk>", "<s>", "a", "b", "ab" * 80])))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse_model(bytes(whole), "t.model")
    except DamagedInput as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("damaged", "fault"),
    [
        (model(["<unk>", "a", "a"]), "twice"),
        (model(["<unk>", "a"], scores=[0.0, float("nan")]), "score"),
        (model(["<unk>", "a"], types=[2, 9]), "type"),
        (model(["<unk>", ""]), "empty"),
    ],
)
def test_impossible_pieces_are_refused(damaged: SentencePieceModel, fault: str) -> None:
    with pytest.raises(DamagedInput, match=fault):
        parse_model(write_model(damaged), "t.model")


def test_a_length_beyond_the_file_costs_nothing() -> None:
    with pytest.raises(DamagedInput, match="ends inside field 1"):
        parse_model(b"\x0a" + varint(1 << 62) + b"x", "t.model")


def test_a_piece_that_is_no_utf8_is_refused() -> None:
    piece = bytes_field(1, b"\xff\xfe") + b"\x15" + struct.pack("<f", 0.0)
    with pytest.raises(DamagedInput, match="not UTF-8"):
        parse_model(bytes_field(1, piece), "t.model")


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_varints_are_read_as_they_are_written(value: int) -> None:
    message = varint_field(5, value)
    ((number, _, start, end),) = fields(message)
    assert (number, varint_of(message, start, end)) == (5, value)


def test_a_tiktoken_list_is_told_from_a_model() -> None:
    assert is_tiktoken(b"IQ== 0\nIg== 1\n")
    assert not is_tiktoken(write_model(model(["<unk>"])))
