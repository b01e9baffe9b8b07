"""How byte-level tokenizers cut text before BPE: one table, from tokenizer.json's structure to GGUF's name and back.

llama.cpp knows pre-tokenizers by name (`tokenizer.ggml.pre`, in src/llama-vocab.cpp) and tokenizer.json describes them. A row
holds the steps that published tokenizers of a name have; `recognise` finds the row of a tokenizer.json, `row_named` the
row of a GGUF, and `cut` writes a row as JSON. A step is a regular expression that isolates its matches, or one of

    gpt2        ByteLevel with GPT-2's expression built in          bytes    ByteLevel without any expression
    digit       Digits, one by one                                  digits   Digits, whole runs
    punct       Punctuation, whole runs

Added tokens and vocabulary play no part, so that fine-tunes are recognised. Where llama.cpp treats several names alike, the
row that the others are listed under (`same`) is the usual one. Text is never normalised by llama.cpp, so of two rows that
differ only in `nfc` it does the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s+(?!\S)|\s+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|" + _SPACES
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_CASED_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|" + _SPACES
_ASCII_PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
_DEEPSEEK = _ASCII_PUNCTUATION + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|" + _SPACES
_CJK = "[一-龥぀-ゟ゠-ヿ]+"
_NOT_HAN_UPPER, _NOT_HAN_LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|" + _SPACES
LLAMA3 = rf"{_CONTRACTION}|{_LEAD}\p{{L}}+|\p{{N}}{{1,3}}|{_SYMBOLS}"
QWEN2 = rf"{_CONTRACTION}|{_LEAD}\p{{L}}+|\p{{N}}|{_SYMBOLS}"
QWEN35 = rf"{_CONTRACTION}|{_LEAD}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|{_SPACES}"
TEKKEN = rf"{_LEAD}{_UPPER}*{_LOWER}+|{_LEAD}{_UPPER}+{_LOWER}*|\p{{N}}|{_CASED_SYMBOLS}"
O200K = rf"{_LEAD}{_UPPER}*{_LOWER}+{_CONTRACTION}?|{_LEAD}{_UPPER}+{_LOWER}*{_CONTRACTION}?|\p{{N}}{{1,3}}|{_CASED_SYMBOLS}"
KIMI = (
    rf"[\p{{Han}}]+|{_LEAD}{_NOT_HAN_UPPER}*{_NOT_HAN_LOWER}+{_CONTRACTION}?"
    rf"|{_LEAD}{_NOT_HAN_UPPER}+{_NOT_HAN_LOWER}*{_CONTRACTION}?|\p{{N}}{{1,3}}|{_SYMBOLS}"
)
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
_JAIS2_SPACES = "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4)) + r"|\s{1,2}(?!\S)|\s{1}"
# escaped are letters whose normal form is another one, lest an editor normalise them
_DEEPSEEK_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥ"
    "ῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_HAN_AND_HANGUL = "[一-龥ࠀ-一가-퟿]+"
_DEEPSEEK_LLM = ("[\r\n]", rf"\s?[{_DEEPSEEK_LETTERS}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", _HAN_AND_HANGUL)
_ASIAN = "[一-鿿㐀-䶿豈-\ufaff぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-\u0e7f\u0e80-\u0effក-៿က-႟ꩠ-ꩿꧠ-\ua9ff가-\ud7afᄀ-ᇿ]+"
_YOUTU = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + _CJK
_BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|" + _SPACES
_SEED_CODER = rf"{_CONTRACTION}|{_LEAD}\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|{_SPACES}"
_EXAONE_MOE = (
    rf"{_CONTRACTION}|{_LEAD}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|{_SPACES}"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A pre-tokenizer: GGUF's name, its steps, whether text is normalised to NFC first, BPE's `ignore_merges` (None: either).

    `same` are further names that mean the same to llama.cpp. `bos` and `sep` tell what llama.cpp adds to a text where
    the file has no `add_bos_token` or `add_sep_token`.
    """

    name: str
    steps: tuple[str, ...]
    nfc: bool = False
    ignore_merges: bool | None = None
    same: tuple[str, ...] = ()
    bos: bool = False
    sep: bool = False


ROWS: tuple[Row, ...] = (
    Row("gpt-2", ("gpt2",), same=("phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum",
        "modern-bert", "exaone4", "jais", "trillion", "granite-docling")),
    Row("roberta-bpe", ("gpt2",), same=("jina-v1-en", "jina-v2-code"), sep=True),
    Row("olmo", ("gpt2",), nfc=True, same=("mpt",)),
    Row("starcoder", ("digit", "gpt2"), same=("refact", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2")),
    Row("command-r", ("digit", "gpt2"), nfc=True),
    Row("llama-bpe", (LLAMA3, "bytes"), ignore_merges=True, bos=True,
        same=("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano")),
    Row("dbrx", (LLAMA3, "bytes"), ignore_merges=False, same=("smaug-bpe", "chatglm-bpe")),
    Row("glm4", (LLAMA3, "bytes"), ignore_merges=True, same=("glm5",)),
    Row("qwen2", (QWEN2, "bytes"), nfc=True, same=("kormo", "f2llmv2", "hunyuan", "megrez", "grok-2", "solar-open")),
    Row("deepseek-r1-qwen", (QWEN2, "bytes"), same=("stablelm2",)),
    Row("qwen35", (QWEN35, "bytes"), nfc=True),
    Row("bailingmoe", (_BAILING, "bytes"), same=("bailingmoe2", "llada-moe")),
    Row("ufakzeka", (rf"{_LEAD}\p{{L}}+|\p{{N}}|{_SYMBOLS}", "bytes")),
    Row("seed-coder", (_SEED_CODER, "bytes")),
    Row("jais-2", (LLAMA3.removesuffix(_SPACES) + _JAIS2_SPACES, "bytes")),
    Row("exaone-moe", (_EXAONE_MOE, "bytes")),
    Row("minicpm5", (r"\p{N}{1,3}", QWEN2.replace(r"|\p{N}|", r"|\p{N}+|"), "bytes"), ignore_merges=True),
    Row("laguna", (r"[^\n]+|[\n]+", QWEN2, "bytes")),
    Row("tekken", (TEKKEN, "bytes"), ignore_merges=True, bos=True),
    Row("gpt-4o", (O200K, "bytes"), same=("llama4", "kanana2", "talkie", "minimax-m2")),
    Row("granite-embed-multi-97m", (O200K, "bytes"), ignore_merges=True),
    Row("tiny_aya", (r"\d{1,3}(?=(?:\d{3})*\b)", O200K, "bytes"), same=("cohere2moe",)),
    Row("youtu", (_YOUTU, O200K.replace(r"\p{N}{1,3}", r"\p{N}"), "bytes"), ignore_merges=True),
    Row("kimi-k2", (KIMI, "bytes")),
    Row("deepseek-llm", (*_DEEPSEEK_LLM, "digit", "bytes")),
    Row("deepseek-llm", (*_DEEPSEEK_LLM, "digits", "bytes")),
    Row("deepseek-coder", ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_AND_HANGUL, "digit", "bytes")),
    Row("deepseek-v3", (r"\p{N}{1,3}", _CJK, _DEEPSEEK, "bytes"), same=("hunyuan-dense", "joyai-llm", "hy_v4")),
    Row("spark2_5", (r"\p{N}{1,3}", _CJK, _DEEPSEEK.replace(r"[\r\n]*|\s*[\r\n]+", r"|[\r\n]"), "digit", "bytes")),
    Row("afmoe", (r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", _ASIAN, _DEEPSEEK, "bytes")),
    Row("falcon", ("punct", "gpt2", "digits", "[0-9][0-9][0-9]")),
    Row("bloom", (BLOOM, "bytes"), same=("poro-chat", "gpt3-finnish")),
    Row("viking", (BLOOM, "digit", "bytes")),
    Row("superbpe", (r"\p{N}+", r"(?=(\d{3})+(?!\d))", "bytes")),
    Row("chameleon", ("<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", "digit",
        r"[\p{P}!-/:-@\[-`{-~]", "gpt2"), bos=True),
    # what llama.cpp does when a file names no pre-tokenizer, as those of before May 2024
    Row("default", (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]", "bytes")),
)  # fmt: skip

_BY_NAME = {name: row for row in reversed(ROWS) for name in (row.name, *row.same)}  # the first row of a name counts

_NAMED_STEPS: Mapping[str, Mapping[str, Any]] = {
    "gpt2": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "bytes": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    "digit": {"type": "Digits", "individual_digits": True},
    "digits": {"type": "Digits", "individual_digits": False},
    "punct": {"type": "Punctuation", "behavior": "Contiguous"},
}


def row_named(name: str) -> Row | None:
    """The row of a GGUF's pre-tokenizer name; None if llama.cpp has no such name, or no byte-level one."""
    return _BY_NAME.get(name)


def cut(row: Row) -> dict[str, Any]:
    """tokenizer.json's `pre_tokenizer` for a row."""
    steps = [dict(_NAMED_STEPS[step]) if step in _NAMED_STEPS else _isolate(step) for step in row.steps]
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


def recognise(steps: Sequence[str], *, nfc: bool, ignore_merges: bool, roberta: bool) -> tuple[str, ...]:
    """GGUF's names for a pre-tokenizer, the usual one first; empty if llama.cpp has none that cuts like it.

    Rows whose steps are spelled the same come before rows that only mean the same, see `_meaning`. `roberta` tells that
    the post-processor is RoBERTa's, whose separators llama.cpp adds for some names only.
    """
    spelled = tuple(steps)
    found = [row for row in ROWS if row.steps == spelled]
    if not found:
        meaning = _meaning(spelled)
        found = [row for row in ROWS if _meaning(row.steps) == meaning]
    found.sort(key=lambda row: _unlike(row, nfc, ignore_merges, roberta))
    return tuple(name for row in found for name in (row.name, *row.same))


def _unlike(row: Row, nfc: bool, ignore_merges: bool, roberta: bool) -> tuple[bool, bool, bool]:
    """How a row with the right steps differs from a tokenizer, the weightiest difference first."""
    return (row.sep != roberta, row.ignore_merges is not None and row.ignore_merges != ignore_merges, row.nfc != nfc)


def steps_of(node: Any) -> tuple[str, ...] | None:
    """The steps of tokenizer.json's `pre_tokenizer`; None if a part of it is not of the kinds that rows are made of."""
    if not isinstance(node, Mapping):
        return None
    if node.get("type") == "Sequence":
        inner = node.get("pretokenizers")
        parts = [steps_of(item) for item in inner] if isinstance(inner, list) else [None]
        return None if None in parts else tuple(step for part in parts if part is not None for step in part)
    step = _step(node)
    return None if step is None else (step,)


def _step(node: Mapping[str, Any]) -> str | None:
    match node.get("type"):
        case "ByteLevel":
            return "gpt2" if node.get("use_regex", True) else "bytes"
        case "Digits":
            return "digit" if node.get("individual_digits") else "digits"
        case "Punctuation":
            return "punct" if node.get("behavior") == "Contiguous" else None
        case "Split":
            return _isolated(node)
    return None


def _isolated(node: Mapping[str, Any]) -> str | None:
    """The expression of a Split that makes each match a piece: the matches are cut out, or all between them is dropped.

    Dropping what does not match is the same for expressions that match everything, as these do.
    """
    pattern = node.get("pattern")
    regex = pattern.get("Regex") if isinstance(pattern, Mapping) else None
    literal = pattern.get("String") if isinstance(pattern, Mapping) else None
    kept = (node.get("behavior"), bool(node.get("invert", False)))
    if kept not in (("Isolated", False), ("Isolated", True), ("Removed", True)):
        return None
    if isinstance(regex, str):
        return regex
    return re.escape(literal) if isinstance(literal, str) else None


def _isolate(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


_SAME_MEANING = (
    ("\r", r"\r"), ("\n", r"\n"), ("\t", r"\t"),
    # spellings of the English contractions (llama.cpp, tiktoken's cl100k, older exports)
    ("(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", _CONTRACTION),
    ("'(?i:[sdmt]|ll|ve|re)", _CONTRACTION), ("(?i:'(?:[sdmt]|ll|ve|re))", _CONTRACTION),
    ("'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])", _CONTRACTION),
    # possessive quantifiers only save backtracking here
    ("?+", "?"), ("++", "+"), ("*+", "*"), ("}+", "}"),
    (r"\p{N}{1}", r"\p{N}"),
    (r"|\s*[\r\n]+|", r"|\s*[\r\n]|"),  # \s* has already taken every earlier newline
    (r"(\s|[.,!?…。，、।۔،])", r"(\s|.,!?…。，、।۔،)"),
)  # fmt: skip
_STEP_MEANING = {"gpt2": (GPT2, "bytes"), "digit": (r"\p{N}",), "digits": (r"\p{N}+",)}


def _meaning(steps: Sequence[str]) -> tuple[str, ...]:
    """The steps with equal ways to say a thing said in one way."""
    plain = [part for step in steps for part in _STEP_MEANING.get(step, (step,))]
    return tuple(_plain(step) for step in plain)


def _plain(regex: str) -> str:
    for spelled, meant in _SAME_MEANING:
        regex = regex.replace(spelled, meant)
    return regex
