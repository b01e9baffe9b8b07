"""The GGUF spoke's way in: the canonical view of a file, its config and its small files rebuilt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hubclient.architectures.language.config import normalise, restore
from hubclient.errors import DamagedInput, PluginConflict
from hubclient.formats.model import Encoding, OpenedCheckpoint, Value
from hubclient.ground.strictjson import write_json
from hubclient.model import Model, Naming, leaf
from hubclient.spokes import carried as own
from hubclient.spokes import projector, rebuild
from hubclient.spokes.exact import main_dtype, narrowed, values_of
from hubclient.spokes.matching import converted, located, match, packed
from hubclient.spokes.packed import without_settings

if TYPE_CHECKING:
    from hubclient.architectures.language.declaration import Architecture
    from hubclient.formats.tokenizers import Tokenizer
    from hubclient.plugins import Host

_TOLD_AGAIN = (
    "general.architecture", "general.type", "general.file_type", "general.quantization_version", "general.alignment",
    "general.size_label", "general.sampling.", "tokenizer.", "hubclient.",
)  # fmt: skip
_ASIDE = ("pooling_mode", "preprocessor")  # what the normalised config tells from other files than config.json
_POOLED = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "lasttoken": "pooling_mode_lasttoken"}


def read(opened: OpenedCheckpoint, host: Host) -> Model:
    """The canonical view of a GGUF file, and of the file with its vision part if there is one."""
    projector.refuse_alone(opened)
    carried = own.load(opened.metadata, opened.path)
    architecture = _recognise(opened, host, carried)
    layout = architecture.layouts["gguf"]
    config = located(opened, lambda: rebuild.told(architecture, opened.metadata))
    config |= rebuild.stated_ids(carried.config) if carried else {}
    stored = {name: leaf(ref) for name, ref in opened.tensors.items()}
    matching = located(opened, lambda: match(architecture, "gguf", stored, "target", config, str(opened.path)))
    tensors = located(opened, lambda: converted(matching, stored, config, "target"))
    derived = {name: values_of(stored[name]) for name in layout.derive if name in opened.tensors}
    config, losses = located(opened, lambda: rebuild.with_derived(architecture, config, derived))
    hf_class = carried.hf_class if carried else _usual_class(architecture, config)
    shapes = {name: array.shape for name, array in tensors.items()}
    located(opened, lambda: rebuild.check_sizes(architecture, config, shapes))
    located(opened, lambda: rebuild.check_shapes(architecture, config, shapes, complete=False))
    vision_config = projector.told(architecture, opened.companion)
    vision = projector.read(architecture, opened.companion, config, vision_config)
    kept = packed(matching)  # whatever a file that has been packed since says that they were
    known = {**(carried.all_dtypes([*tensors, *vision]) if carried else {}), **kept}
    plain = (opened.tensors[name] for bound in matching.bound if not bound.rule.stored for name in bound.inputs)
    dtypes, fitting = narrowed({**tensors, **vision}, _main_encoding(plain), known)
    if not carried:  # with our own key the difference is to what the text part alone tells
        config, shapes = {**config, **vision_config}, shapes | {name: array.shape for name, array in vision.items()}
    raw = located(
        opened, lambda: rebuild.rebuild(architecture, hf_class, config, opened.metadata, shapes, main_dtype(dtypes, tensors))
    )
    if carried:
        raw, losses = restore(raw, carried.config), []
    if not kept:
        raw = without_settings(raw)  # of a source that was packed until it became this file
    whole = located(opened, lambda: normalise(raw, architecture.defaults, architecture.aliases))
    if opened.companion is not None:
        projector.check_shapes(architecture, opened.companion, whole, vision)
    aside = {key: value for key, value in {**config, **vision_config}.items() if key in _ASIDE}
    files = dict(carried.files) if carried else located(opened, lambda: _rebuilt_files(opened.metadata, config, raw))
    naming = carried.naming if carried else Naming(not architecture.headless(hf_class))
    return Model(
        opened=opened, architecture=architecture, hf_class=hf_class,
        config={**whole, **aside}, raw_config=raw, tensors={**tensors, **vision}, naming=naming,
        dtypes=dtypes, fitting=fitting, files=files, losses=tuple(losses), lacking=_lacking(architecture, opened), pre=stated_pre(opened.metadata),
        metadata=_unread(architecture, opened.metadata), load_tokenizer=lambda: load_tokenizer(opened, architecture),
    )  # fmt: skip


def _lacking(architecture: Architecture, opened: OpenedCheckpoint) -> tuple[str, ...]:
    if projector.SPACE not in architecture.layouts or opened.companion is not None:
        return ()
    return ("the vision part, which lies in a file of its own: name it with --projector",)


def stated_pre(metadata: Mapping[str, Value]) -> str | None:
    """The pre-tokenizer's name, if the file says one."""
    stored = metadata.get("tokenizer.ggml.pre")
    return stored.value if stored is not None and stored.type == "str" else None


def _unread(architecture: Architecture, metadata: Mapping[str, Value]) -> dict[str, Value]:
    """Keys that neither the config nor the tokenizer tells again, and that do not follow from the tensors."""
    read = {key for pair in architecture.config for key in pair.keys(architecture.name_in("gguf"))}
    return {key: value for key, value in metadata.items() if key not in read and not key.startswith(_TOLD_AGAIN)}


def load_tokenizer(opened: OpenedCheckpoint, architecture: Architecture | None) -> Tokenizer | None:
    """The tokenizer of a file's keys, None if it has none; the architecture says how its family stores one."""
    from hubclient.formats.tokenizers import from_gguf

    if "tokenizer.ggml.model" not in opened.metadata:
        return None
    kept = opened.metadata.get(own.TOKENIZER_KEY)
    options = architecture.tokenizer if architecture else None
    elsewhere = (
        {key for pair in architecture.config for key in pair.keys("")} if architecture else set()
    )  # BERT's token_type_count
    metadata = {key: value for key, value in opened.metadata.items() if key not in elsewhere}
    return from_gguf(metadata, str(kept.value) if kept else None, options=options, source=opened.path)


def _main_encoding(stored: Iterable[Any]) -> Encoding | None:
    """The encoding that holds most bytes, of matrices if there are any."""
    sizes: dict[Encoding, int] = {}
    for item in stored:
        weight = item.nbytes if len(item.shape) > 1 else 0
        sizes[item.encoding] = sizes.get(item.encoding, 0) + weight
    return max(sizes, key=lambda encoding: sizes[encoding], default=None)


def _recognise(opened: OpenedCheckpoint, host: Host, carried: own.Carried | None) -> Architecture:
    stated = opened.metadata.get("general.architecture")
    if stated is None or stated.type != "str":
        fault = "missing" if stated is None else f"of type {stated.type}"
        raise DamagedInput(f"general.architecture is {fault}, so nothing says what model this is", file=opened.path)
    name = str(stated.value)
    candidates = list(host.architectures("gguf", name))
    if carried:
        named = [item for item in candidates if item.name == carried.architecture]
        if named:
            return named[0]
    if opened.companion is not None:
        candidates = projector.fitting(candidates, opened.companion) or candidates
        if len(candidates) == 1:
            return candidates[0]
    told_apart = [item for item in candidates if item.when is not None and item.when.of(_names(item, opened))]
    usual = [item for item in candidates if item.when is None and item.look_alike is None]
    found = told_apart or usual
    if len(found) != 1:
        names = ", ".join(item.name for item in found) or "none"
        raise PluginConflict(
            f"{opened.path}: {name!r} may be any of several declarations ({names}) and nothing tells them apart", name
        )
    return found[0]


class _Anything(Mapping[str, Any]):
    """A config in which every size is one: enough to see which tensors there are."""

    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _names(architecture: Architecture, opened: OpenedCheckpoint) -> dict[str, Any]:
    """What a fact that tells look-alikes apart may look at."""
    matching = architecture.layouts["gguf"].match(opened.tensors, "target", {}, _Anything())
    tensors = [*matching.unmatched, *(name for bound in matching.bound for name in bound.outputs)]
    return {**{key: value.value for key, value in opened.metadata.items()}, **dict.fromkeys(tensors, ())}


def _usual_class(architecture: Architecture, config: Mapping[str, Any]) -> str:
    headless = [name for name in architecture.hf if architecture.headless(name)]
    return headless[0] if headless and "pooling_mode" in config else architecture.hf[0]


def _rebuilt_files(metadata: Mapping[str, Value], config: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, bytes]:
    files = {}
    if generation := rebuild.generation_config(metadata, raw):
        files["generation_config.json"] = write_json(generation)
    if preprocessor := config.get("preprocessor"):
        files["preprocessor_config.json"] = write_json(preprocessor)
    if pooling := config.get("pooling_mode"):
        modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
        listed = [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(modules)
        ]
        width = metadata.get(f"{metadata['general.architecture'].value}.embedding_length")
        files["modules.json"] = write_json(listed)
        files["1_Pooling/config.json"] = write_json(
            {"word_embedding_dimension": width and width.value, **{key: mode == pooling for mode, key in _POOLED.items()}}
        )
    return files
