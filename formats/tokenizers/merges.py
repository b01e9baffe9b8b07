"""Merges: between pairs, GGUF's strings, and what a vocabulary with scores or ranks implies.

SentencePiece's BPE has no merges. It joins the neighbours whose joined text has the best score, the leftmost of equals.
The same is said by merges: every split of every piece into two pieces, the best-scored piece first. Among the splits of
one piece the one with the longest left part comes first: equal neighbours are then joined from the left, as
SentencePiece does (a run of spaces shows the difference).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from hubclient.errors import DamagedInput
from hubclient.ground.names import shown

Pair = tuple[str, str]

MAX_WORK = 1 << 28  # characters sliced while splitting tokens; Gemma's 262 thousand need 15 million
_SPACE_IN_MERGE = "Ġ"  # chr(256 + ord(" ")): GGUF separates the parts of a merge by a space


def implied_merges(order: Iterable[str], known: Mapping[str, int], source: Path | str) -> list[Pair]:
    """All splits of the texts in `order` (best first) into two texts that are `known`, see above.

    Raises DamagedInput, with `source` as the file, for texts so long that this would take minutes.
    """
    merges: list[Pair] = []
    append, work = merges.append, 0
    for text in order:
        length = len(text)
        work += length * length
        if work > MAX_WORK:
            raise DamagedInput(f"has tokens too long to be split into merges, such as {shown(text)}", file=source)
        for at in range(length - 1, 0, -1):
            left = text[:at]
            if left in known and (right := text[at:]) in known:
                append((left, right))
    return merges


def implied_by_id(known: Mapping[str, int], texts: Sequence[str], scores: Sequence[float], source: Path | str) -> list[Pair]:
    """The merges that Transformers' converters derive: all splits, those of one text by the ids of their parts."""
    ranked = sorted(((text, score) for text, score in zip(texts, scores, strict=True) if text in known), key=lambda row: -row[1])
    merges: list[Pair] = []
    for text, _ in ranked:
        merges += sorted(implied_merges((text,), known, source), key=lambda pair: (known[pair[0]], known[pair[1]]))
    return merges


def best_first(texts: Sequence[str], scores: Sequence[float], types: Sequence[int], joined: Iterable[int]) -> list[str]:
    """The texts of the types in `joined`, by falling score; equal scores keep their order."""
    kinds = frozenset(joined)
    ids = [index for index, kind in enumerate(types) if kind in kinds]
    ids.sort(key=lambda index: -scores[index])
    return [texts[index] for index in ids]


def scores_of_merges(merges: Sequence[Pair]) -> dict[str, float]:
    """For each text that merges produce, minus the place of the first that does: SentencePiece then joins in that order."""
    scores: dict[str, float] = {}
    for rank, (left, right) in enumerate(merges):
        scores.setdefault(left + right, -float(rank))
    return scores


def to_strings(merges: Sequence[Pair]) -> list[str]:
    """Merges as GGUF holds them: parts separated by one space, spaces inside parts as U+0120, as llama.cpp writes them."""
    if any(" " in part for pair in merges for part in pair):
        return [" ".join(part.replace(" ", _SPACE_IN_MERGE) for part in pair) for pair in merges]
    return [f"{left} {right}" for left, right in merges]


def from_strings(strings: Iterable[str], source: Path | str) -> list[Pair]:
    """GGUF's merges as pairs, split where llama.cpp splits them: at the first space after the first character."""
    merges = []
    for place, text in enumerate(strings):
        at = text.find(" ", 1)
        if at < 0 or at + 1 == len(text):
            raise DamagedInput(f"merge {place}, {shown(text)}, is not two parts separated by a space", file=source)
        merges.append((text[:at], text[at + 1 :]))
    return merges


def check_merges(merges: Sequence[Pair], known: Mapping[str, int], source: Path | str, prefix: str = "") -> None:
    """Raises DamagedInput unless every merge joins two tokens to a third; `prefix` marks tokens that continue a word."""
    skip = len(prefix)
    parts = frozenset(chain.from_iterable(merges))
    joined = map("".join, merges) if not skip else (left + right[skip:] for left, right in merges)
    if known.keys() >= parts and all(map(known.__contains__, joined)):
        return
    for place, (left, right) in enumerate(merges):
        missing = next((text for text in (left, right, left + right[skip:]) if text not in known), None)
        if missing is not None:
            raise DamagedInput(f"merge {place} needs the token {shown(missing)}, which is not in the vocabulary", file=source)
