"""The Hugging Face spoke: a Transformers folder of safetensors, its config, tokenizer and small files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.architectures.language.arrays import Array, Leaf
from hubclient.architectures.language.config import normalise
from hubclient.errors import DamagedInput, UnmappedTensor, UnsupportedArchitecture, UnsupportedEncoding, UsageError
from hubclient.formats import safetensors
from hubclient.formats.encodings import F32
from hubclient.formats.jsonfile import CONFIG_LIMIT, read_json, read_object
from hubclient.formats.model import Encoding, OpenedCheckpoint, OutputSpec, TensorSpec
from hubclient.formats.safetensors.reader import INDEX
from hubclient.formats.sourcefile import read_source
from hubclient.formats.tokenizers import is_tokenizer_file
from hubclient.ground.names import shown
from hubclient.ground.strictjson import write_json
from hubclient.model import Model, Naming, Request, Target, display_name, encodings_of
from hubclient.spokes.matching import as_if_stored
from hubclient.spokes.packed import plain_dtype, refuse_unread, unpack, without_settings

if TYPE_CHECKING:
    from hubclient.architectures.language.declaration import Architecture
    from hubclient.formats.tokenizers import Tokenizer
    from hubclient.plugins import Host


_MANY = 1000
TORCH_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def read(opened: OpenedCheckpoint, host: Host) -> Model:
    """The canonical view of a Transformers folder."""
    if "config.json" not in opened.sidecars:
        raise DamagedInput(f"{opened.path}: there is no config.json beside the weights, so nothing says what model this is")
    raw = read_object(opened.sidecars["config.json"])
    architecture, hf_class = recognise(raw, opened.sidecars["config.json"], host)
    stored, packing = unpack(opened, raw)
    tensors, naming = canonical(architecture, stored)
    plain = plain_dtype(raw)
    return Model(
        opened=opened,
        architecture=architecture,
        hf_class=hf_class,
        config=normalised(raw, architecture, opened),
        raw_config=raw,
        tensors=tensors,
        naming=naming,
        dtypes={name: array.ref.encoding if isinstance(array, Leaf) else plain for name, array in tensors.items()},
        files=LazyFiles(
            {name: path for name, path in opened.sidecars.items() if name != "config.json" and not is_tokenizer_file(name)}
        ),
        losses=tuple(left_behind(opened)),
        packed=packing,
        metadata={key: value for key, value in opened.metadata.items() if key != "format"},
        load_tokenizer=lambda: read_tokenizer(opened.sidecars),
    )


def left_behind(opened: OpenedCheckpoint) -> Iterator[str]:
    """A sentence on the folder's files that are neither weights nor small files of a checkpoint; hidden ones do not count."""
    if not opened.path.is_dir():
        return
    taken = {file.path for file in opened.files} | set(opened.sidecars.values())
    taken.add(opened.path / INDEX)  # mlx-lm writes one even for a single file, which then is all there is
    found = []
    for folder, folders, names in os.walk(opened.path):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        found += [Path(folder, name) for name in sorted(names) if not name.startswith(".") and Path(folder, name) not in taken]
        if len(found) > _MANY:
            break
    if found:
        some = ", ".join(shown(path.relative_to(opened.path).as_posix()) for path in found[:3])
        more = f" and {len(found) - 3}{' or more' if len(found) > _MANY else ''} others" if len(found) > 3 else ""
        yield f"files beside the checkpoint: {some}{more}"


def recognise(raw: Mapping[str, Any], path: Path, host: Host) -> tuple[Architecture, str]:
    """The architecture that config.json names by class, or failing that by model_type."""
    classes = raw.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise DamagedInput(f"architectures is {shown(classes)} where a list of class names is needed", file=path)
    if classes:
        return host.architectures("hf", classes[0])[0], classes[0]
    model_type = raw.get("model_type")
    found = [item for item in host.all_architectures() if item.model_type == model_type]
    found = [item for item in found if item.when is None] or found[:1]
    if not found:
        raise UnsupportedArchitecture(
            f"{path}: names no architecture, and model_type {model_type!r} is not known here", str(model_type)
        )
    return found[0], found[0].hf[0]


def canonical(architecture: Architecture, stored_tensors: Mapping[str, Array]) -> tuple[dict[str, Array], Naming]:
    """Stored tensors under full names: older last components made new, the prefix that headless classes leave out put back."""
    prefix = architecture.prefix

    def known(name: str) -> bool:
        return any(layout.knows(name, "hf") for layout in architecture.layouts.values())

    tensors: dict[str, Array] = {}
    older: set[str] = set()
    begun: set[str] = set()
    bare = False
    for stored, array in stored_tensors.items():
        name = stored
        head, _, last = stored.rpartition(".")
        if last in architecture.spellings and head.endswith("LayerNorm"):
            older.add(last)
            name = f"{head}.{architecture.spellings[last]}"
        other = next((old for old in architecture.prefixes if name.startswith(old)), None)
        if other is not None:
            renamed = architecture.prefixes[other] + name.removeprefix(other)
            repeated = renamed in stored_tensors or renamed in tensors
            if not known(name) or (not repeated and any(layout.drops(name) for layout in architecture.layouts.values())):
                begun.add(other)
                name = renamed
        if prefix and not name.startswith(prefix) and not known(name) and known(prefix + name):
            bare, name = True, prefix + name
        if name in tensors:
            file = next(array.leaves()).ref.file
            raise DamagedInput(f"{file}: {stored} and another tensor both mean {name}", tensor=stored)
        tensors[name] = array
    return tensors, Naming(not bare, tuple(sorted(older)), tuple(sorted(begun)))


def stored_name(name: str, architecture: Architecture, naming: Naming) -> str:
    """The inverse of `canonical` for one name."""
    head, _, last = name.rpartition(".")
    if head.endswith("LayerNorm"):
        last = {architecture.spellings[old]: old for old in naming.older}.get(last, last)
        name = f"{head}.{last}"
    for old in naming.begun:
        if name.startswith(architecture.prefixes[old]):
            return old + name.removeprefix(architecture.prefixes[old])
    return name if naming.prefixed else name.removeprefix(architecture.prefix)


def choose(model: Model, name: str) -> tuple[str, Encoding | None]:
    """`--type` for safetensors: "auto" keeps each tensor's own dtype. UnsupportedEncoding for what is only read."""
    if name.lower() == "auto":
        outputs = {stored: encoding for stored, _, encoding in _outputs(model, None)}
        packed = (outputs.get(next(iter(parts))) for parts in model.packed.parts.values())
        return main_type(filter(None, packed) if model.packed.parts else outputs.values()).removesuffix("_PLANES"), None
    encoding = safetensors.FORMAT.encoding(name)
    if encoding.name not in (known := safetensors.made()):
        raise UnsupportedEncoding(
            f"{encoding} is a type of safetensors that is read, and kept by auto, but not made here; {', '.join(known)} are"
        )
    return encoding.name, encoding


def parts(model: Model, request: Request) -> tuple[Request, ...]:
    """One folder holds all parts of a model. UsageError where a part alone is asked for."""
    if request.only in ("text", "projector"):
        raise UsageError(f"a folder holds all parts of {display_name(model.opened.path)}; --only {request.only} is for GGUF")
    return (request,)


def main_type(encodings: Iterable[Encoding]) -> str:
    """The commonest encoding, for a file name: of the blocks if there are any, which nothing else is called after."""
    known = list(encodings)
    names = [encoding.name for encoding in known if encoding.blocked] or [encoding.name for encoding in known]
    return Counter(names).most_common(1)[0][0] if names else "empty"


def write(model: Model, request: Request) -> Target:
    """A Transformers folder with this model's tensors, config.json, tokenizer and small files."""
    label, wanted = choose(model, request.type)
    label = request.only or label
    if request.only is None and not model.tensors:
        raise UnmappedTensor(f"{model.opened.path}: holds no tensors", hint="--only tokenizer and --only config need none")
    if wanted is not None:
        refuse_unread(model)
    specs, arrays = [], []
    for name, array, encoding in _outputs(model, wanted):
        specs.append(TensorSpec(name, array.shape, encoding))
        arrays.append(array)
    losses, sidecars = [*model.losses, *model.lacking, *(model.packed.losses if wanted is not None else ())], {}
    if request.only != "config":
        tokens = tokenizer_files(model)
        sidecars.update(tokens)
        if not tokens and request.only == "tokenizer":
            raise DamagedInput(f"{model.opened.path}: there is no tokenizer")
        if not tokens:
            losses.append("tokenizer: the source has none")
    if request.only != "tokenizer":
        sidecars["config.json"] = write_json(written_config(model, specs, wanted))
    if request.only is None:
        sidecars.update(model.files)
    kept = model.metadata if model.opened.format in ("safetensors", "mlx") else {}  # both keep it in the same header
    losses += [
        f"metadata {key} has no place in safetensors" for key in model.metadata if key not in kept and key != "general.name"
    ]
    spec = OutputSpec("model", tuple(specs) if request.only is None else (), kept, sidecars, request.max_shard_size)
    known = model.fitting if wanted is None else frozenset()
    fitting = frozenset(stored_name(name, model.architecture, model.naming) for name in known)
    return Target(spec, tuple(arrays) if request.only is None else (), label, fitting, tuple(losses))


def _outputs(model: Model, wanted: Encoding | None) -> Iterator[tuple[str, Array, Encoding]]:
    """Name, array and encoding of each tensor of a folder; what the source has packed stays so unless a dtype is wanted."""
    tensors = model.tensors if wanted is None else as_if_stored(model, wanted)
    for name, array in tensors.items():
        stored = stored_name(name, model.architecture, model.naming)
        if wanted is None and stored in model.packed.parts:
            yield from ((part, own, own.ref.encoding) for part, own in model.packed.parts[stored].items())
        else:
            own = restored(model, array, name)  # blocks that safetensors has a name for stay blocks
            yield stored, array, own if wanted is None else cast(array, wanted)
    if wanted is None:
        yield from ((part, own, own.ref.encoding) for part, own in model.packed.aside.items())


def tokenizer_files(model: Model) -> dict[str, bytes]:
    """The tokenizer's files: as they are if the source has them, rebuilt otherwise."""
    from hubclient.formats.tokenizers import to_files
    from hubclient.formats.tokenizers.hf import TOKENIZER_LIMIT

    if model.opened.sidecars:
        names = filter(is_tokenizer_file, model.opened.sidecars)
        return {name: read_source(model.opened.sidecars[name], TOKENIZER_LIMIT)[0] for name in names}
    return to_files(model.tokenizer) if model.tokenizer is not None else {}


def restored(model: Model, array: Array, name: str) -> Encoding:
    """The dtype a tensor has or had; an encoding that safetensors lacks is decoded to float32, which loses nothing."""
    if name in model.dtypes:
        return model.dtypes[name]
    own = encodings_of(array)
    encoding = own.pop() if len(own) == 1 else F32
    return encoding if encoding.safetensors and array.moves_elements else F32


def cast(array: Array, wanted: Encoding) -> Encoding:
    """`wanted` for tensors of floats; integers and booleans stay what they are."""
    own = encodings_of(array)
    encoding = own.pop() if len(own) == 1 else wanted
    return encoding if not encoding.blocked and encoding.name.startswith(("I", "U", "BOOL")) else wanted


def written_config(model: Model, specs: list[TensorSpec], wanted: Encoding | None) -> dict[str, Any]:
    """config.json's content for an output of these tensors, all of them of the dtype `wanted` if there is one."""
    if wanted is None or wanted.name not in TORCH_DTYPES or not specs:
        return dict(model.raw_config)
    raw = without_settings(model.raw_config)  # nothing is packed any more
    key = "dtype" if "dtype" in raw else "torch_dtype"
    return {**raw, key: TORCH_DTYPES[wanted.name]}


def normalised(raw: Mapping[str, Any], architecture: Architecture, opened: OpenedCheckpoint) -> dict[str, Any]:
    """config.json's content (`raw`) in one spelling, with how the folder pools; DamagedInput names config.json."""
    try:
        config = normalise(raw, architecture.defaults, architecture.aliases)
    except DamagedInput as error:
        raise DamagedInput(error.message, file=opened.sidecars["config.json"]) from None
    if (pooling := pooling_mode(opened.sidecars)) is not None:
        config["pooling_mode"] = pooling
    if preprocessor := _preprocessor(opened.sidecars):
        config["preprocessor"] = preprocessor
    return config


def _preprocessor(sidecars: Mapping[str, Path]) -> dict[str, Any]:
    """How images are prepared: preprocessor_config.json, or the newer processor_config.json where it says more."""
    found: dict[str, Any] = {}
    for name, key in (("preprocessor_config.json", "media_proc_cfg"), ("processor_config.json", "image_processor")):
        content = read_object(sidecars[name]) if name in sidecars else {}
        inner = content.get(key)
        found |= {**content, **inner} if isinstance(inner, Mapping) else content
    return found


def pooling_mode(sidecars: Mapping[str, Path]) -> str | None:
    """How a sentence-transformers folder pools: "mean", "cls" or "lasttoken"; None if it does not say."""
    if "modules.json" not in sidecars:
        return None
    modules = read_json(sidecars["modules.json"])
    entries = [item for item in modules if isinstance(item, dict)] if isinstance(modules, list) else []
    for module in entries:
        if str(module.get("type", "")).endswith("Pooling"):
            name = f"{module.get('path', '')}/config.json"
            if name not in sidecars:
                raise DamagedInput(f"{sidecars['modules.json']}: names {name}, which is not there")
            return _pooling(read_object(sidecars[name]), sidecars[name])
    return None


def _pooling(config: Mapping[str, Any], path: Path) -> str:
    for mode in ("mean", "cls", "lasttoken"):
        key = "pooling_mode_mean_tokens" if mode == "mean" else f"pooling_mode_{mode}{'_token' if mode == 'cls' else ''}"
        if config.get(key) or config.get("pooling_mode") == mode:
            return mode
    raise DamagedInput(f"{path}: pools in a way that is not known here; mean, cls and lasttoken are")


def read_tokenizer(sidecars: Mapping[str, Path]) -> Tokenizer | None:
    """The tokenizer of a folder's files, None if there is none."""
    from hubclient.formats.tokenizers import read_files

    return read_files(sidecars)


class LazyFiles(Mapping[str, bytes]):
    """Small files, read when asked for; DamagedInput for one that is not small."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = dict(paths)

    def __getitem__(self, name: str) -> bytes:
        return read_source(self._paths[name], CONFIG_LIMIT)[0]

    def __iter__(self) -> Any:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
