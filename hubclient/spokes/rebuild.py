"""config.json from what a GGUF says without any help of our own keys.

Writing uses the same functions, to store only the difference to what a reader would rebuild.
"""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as shown
from typing import TYPE_CHECKING, Any

from hubclient.architectures.language.config import inner, spell
from hubclient.architectures.language.declaration import NULL, columns_of, rows_of
from hubclient.architectures.language.expressions import COMPUTED, evaluate, lookup
from hubclient.architectures.language.pairs import Pair, Pairs, backward, forward, u32
from hubclient.architectures.language.patterns import Pattern, template
from hubclient.errors import DamagedInput
from hubclient.formats.model import Value
from hubclient.spokes.huggingface import TORCH_DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from hubclient.architectures.language.declaration import Architecture, Shapes
    from hubclient.architectures.language.expressions import Expr

_TOKEN_IDS: Pairs = (
    u32("bos_token_id", "tokenizer.ggml.bos_token_id"),
    u32("eos_token_id", "tokenizer.ggml.eos_token_id"),
    u32("pad_token_id", "tokenizer.ggml.padding_token_id"),
)
_SAMPLING = tuple(  # generation_config.json's name and GGUF's
    Pair(name, f"general.sampling.{key}", kind)
    for name, key, kind in (
        ("sequence", "sequence", "str"), ("top_k", "top_k", "i32"), ("top_p", "top_p", "f32"), ("min_p", "min_p", "f32"),
        ("xtc_probability", "xtc_probability", "f32"), ("xtc_threshold", "xtc_threshold", "f32"), ("temperature", "temp", "f32"),
        ("penalty_last_n", "penalty_last_n", "i32"), ("repetition_penalty", "penalty_repeat", "f32"),
        ("mirostat", "mirostat", "i32"), ("mirostat_tau", "mirostat_tau", "f32"), ("mirostat_eta", "mirostat_eta", "f32"),
    )
)  # fmt: skip


def told(architecture: Architecture, metadata: Mapping[str, Value]) -> dict[str, Any]:
    """The normalised config that metadata alone tells, with what follows from it."""
    config = backward((*_TOKEN_IDS, *architecture.config), metadata, architecture.name_in("gguf"))
    following = {key: (default[1] if isinstance(default, tuple) else default) for key, default in architecture.defaults.items()}
    assumed = {path: value for path, value in architecture.assumed.items() if not isinstance(value, tuple)}
    for key, expression in {**following, **assumed}.items():
        if lookup(config, key) is None and (isinstance(expression, COMPUTED) or key in assumed):
            value = _assumed(expression, config)
            if value is not None:
                place, last = inner(config, key)
                place[last] = value
    return {key: value for key, value in config.items() if value is not None}


def stated_ids(changes: Mapping[str, Any]) -> dict[str, int]:
    """Ids of tokens that a carried config says otherwise than the tokenizer's keys; sizes may depend on them."""
    kept = changes.get("set", {})
    return {pair.hf: kept[pair.hf] for pair in _TOKEN_IDS if isinstance(pair, Pair) and type(kept.get(pair.hf)) is int}


def rebuild(
    architecture: Architecture,
    hf_class: str,
    config: Mapping[str, Any],
    metadata: Mapping[str, Value],
    shapes: Shapes,
    dtype: str | None,
) -> dict[str, Any]:
    """config.json's content for a normalised config (see `told`), the model's Hugging Face tensors and its main dtype."""
    whole = dict(config)
    for path, fact in architecture.implied.items():
        if (value := fact.of(shapes)) is not None:
            place, last = inner(whole, path)
            place[last] = None if value is NULL else value
    whole = {**whole, **backward(_TOKEN_IDS, metadata, ""), "dtype": TORCH_DTYPES.get(dtype or "", "float32")}
    for key in ("pooling_mode", "preprocessor"):
        whole.pop(key, None)
    if "id2label" in whole:
        whole["label2id"] = {label: int(index) for index, label in whole["id2label"].items()}
    said = spell(whole)
    if architecture.nested:
        own: dict[str, Any] = {key: said.pop(key) for key in ("vision_config", *architecture.outer) if key in said}
        both: dict[str, Any] = {key: said[key] for key in ("tie_word_embeddings", "torch_dtype") if key in said}
        said = {"text_config": {"model_type": architecture.nested, **said}, **own, **both}
    return {"architectures": [hf_class], "model_type": architecture.model_type, **said}


def check_sizes(architecture: Architecture, config: Mapping[str, Any], shapes: Shapes) -> None:
    """DamagedInput if the config says another size than the tensors that it is the size of."""
    for key, fact in architecture.implied.items():
        said, found = config.get(key), fact.of(shapes)
        if isinstance(fact, rows_of | columns_of) and None not in (said, found) and said != found:
            raise DamagedInput(f"config: {key} is {shown(said)}, but tensor {fact.name} has the shape {list(shapes[fact.name])}")


def check_shapes(architecture: Architecture, config: Mapping[str, Any], shapes: Shapes, *, complete: bool) -> None:
    """DamagedInput if a tensor's shape contradicts the config. Unless the config is `complete`, what it lacks is not held against it."""
    patterns: dict[str, list[Pattern]] = {}
    for text in architecture.shapes:
        patterns.setdefault((pattern := Pattern.of(text)).template, []).append(pattern)
    get = evaluate if complete else _evaluate
    wanted: dict[str, tuple[int | None, ...]] = {}
    for name, shape in shapes.items():
        kind, digits = template(name)
        found = next((pattern.text for pattern in patterns.get(kind, ()) if pattern.covers(digits)), None)
        if found is None:
            continue
        if found not in wanted:
            wanted[found] = tuple(get(size, config) for size in architecture.shapes[found])
        if wanted[found] != shape:  # hardly ever
            _check_shape(name, shape, architecture.shapes[found], wanted[found])


def _check_shape(name: str, shape: tuple[int, ...], rule: tuple[Expr, ...], expected: tuple[int | None, ...]) -> None:
    """DamagedInput unless all sizes that are known are as expected."""
    if len(expected) != len(shape) or any(size not in (None, found) for size, found in zip(expected, shape, strict=True)):
        sizes = zip(rule, expected, strict=True)
        told = ", ".join(str(one) if size in (None, one) else f"{one} = {size}" for one, size in sizes)
        raise DamagedInput(f"{name} has the shape {list(shape)} where the config asks for [{told}]", tensor=name)


def with_derived(
    architecture: Architecture, config: dict[str, Any], tensors: Mapping[str, Callable[[], np.ndarray[Any, Any]]]
) -> tuple[dict[str, Any], list[str]]:
    """The config with what derived tensors (rope factors) tell; and a sentence for each that tells nothing known."""
    losses = []
    for name, derivation in architecture.derived.items():
        if name in tensors:
            stored = tensors[name]()
            found = derivation.backward(stored, config)
            if found is None:
                losses.append(f"{name}: no config gives these values, so they are not carried over")
                continue
            config = {**config, "rope_parameters": {**config.get("rope_parameters", {}), **found}}
            if not _within_one_step(derivation.forward(config), stored):
                losses.append(f"{name}: the config that gives these values gives some of them a few units in the last place off")
    return config, losses


def _within_one_step(one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]) -> bool:
    import numpy as np

    return bool(np.all(np.abs(one - two) <= np.spacing(np.maximum(np.abs(one), np.abs(two)))))


def assumption_losses(assumed: Mapping[str, tuple[Any, ...] | Expr], config: Mapping[str, Any]) -> list[str]:
    """A sentence for each config value that GGUF has no key for and its readers take to be something else."""
    losses = []
    for path, expected in assumed.items():
        value = lookup(config, path)
        accepted = expected if isinstance(expected, tuple) else (_assumed(expected, config), None)
        if value not in accepted:
            losses.append(f"config: {path} is {shown(value)}, which GGUF cannot say; its readers assume {shown(accepted[0])}")
    return losses


def sampling(generation: Mapping[str, Any]) -> tuple[dict[str, Value], list[str]]:
    """`general.sampling.*` keys from generation_config.json's content, and a sentence for each value that does not fit."""
    result, losses = {}, []
    for pair in _SAMPLING:
        try:
            result.update({key: Value(*typed) for key, typed in forward((pair,), generation, "").items()})
        except DamagedInput:
            losses.append(f"generation_config.json: {pair.hf} is {shown(generation[pair.hf])}, which GGUF cannot hold")
    return result, losses


def generation_config(metadata: Mapping[str, Value], config: Mapping[str, Any]) -> dict[str, Any]:
    """generation_config.json's content from `general.sampling.*`; empty if there are none."""
    found = backward(_SAMPLING, metadata, "")
    ids = {pair.hf: config[pair.hf] for pair in _TOKEN_IDS if isinstance(pair, Pair) and pair.hf in config}
    return {**ids, **({"do_sample": True} if "temperature" in found else {}), **found} if found else {}


def _assumed(expression: Any, config: Mapping[str, Any]) -> Any:
    """What an expression says a value is: a name alone may stand for a value of any kind."""
    return lookup(config, expression) if isinstance(expression, str) else _evaluate(expression, config)


def _evaluate(expression: Any, config: Mapping[str, Any]) -> int | None:
    try:
        return evaluate(expression, config)
    except DamagedInput:
        return None  # the file lacks what it follows from; whoever needs the value says so
