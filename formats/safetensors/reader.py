"""Opening what safetensors users have: one file, an index, a Transformers folder, or its small files alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from hubclient.errors import DamagedInput, SourceMissing, UnsupportedFormat, UsageError
from hubclient.formats.model import OpenedCheckpoint, SourceFile, TensorRef, Value
from hubclient.formats.safetensors.header import Header, has_header, read_header
from hubclient.formats.safetensors.index import INDEX_SUFFIX, check_index, check_numbers, read_index, shard_stem
from hubclient.formats.safetensors.planes import join
from hubclient.formats.safetensors.sidecars import MODEL_FILES, is_sidecar, sidecars
from hubclient.formats.sourcefile import is_file, is_folder, listing, require_regular
from hubclient.ground.names import shown

NAME = "safetensors"
SUFFIX = ".safetensors"
SINGLE = f"model{SUFFIX}"
INDEX = f"model{INDEX_SUFFIX}"

_USUAL_WEIGHTS = re.compile(r"model(?:-\d+-of-\d+)?\.safetensors(?:\.index\.json)?")


def belongs_to_checkpoint(name: str) -> bool:
    """Whether a file of this relative POSIX name is what a Transformers folder consists of; weights of other names are not."""
    return _USUAL_WEIGHTS.fullmatch(name) is not None or is_sidecar(name)


def looks_like_safetensors(path: Path) -> bool:
    """By name for files and folders, by the first bytes for files of other names (blobs of a cache)."""
    if is_folder(path):
        names = listing(path)
        return bool(_weights(names)) or ("config.json" in names and not any(name.endswith(".gguf") for name in names))
    return path.name.endswith((SUFFIX, INDEX_SUFFIX)) or (is_file(path) and has_header(path))


def open_checkpoint(path: Path) -> OpenedCheckpoint:
    """The checkpoint at `path`: a folder, an index, or one weight file, with the small files beside it.

    Raises DamagedInput; UnsupportedFormat if a folder holds no weights of this format; UsageError if it holds several
    and says nowhere which to take; SourceMissing or another EnvironmentFault.
    """
    if is_folder(path):
        return _open_folder(path)
    if path.name.endswith(INDEX_SUFFIX):
        return _open_index(path, path)
    return _open_files(path, [path])


def open_folder_without_weights(path: Path) -> OpenedCheckpoint:
    """The configs and tokenizer files of a folder as a checkpoint without tensors; weights, if any, are not looked at.

    A file stands for the folder it lies in. UnsupportedFormat if that holds none of them.
    """
    if not is_folder(path):
        require_regular(path)
    small = sidecars(path if is_folder(path) else path.parent)
    if not MODEL_FILES.intersection(small):
        raise UnsupportedFormat(f"{path}: holds neither config.json nor a tokenizer file")
    return OpenedCheckpoint(NAME, path, (), MappingProxyType({}), sidecars=small)


def _open_folder(folder: Path) -> OpenedCheckpoint:
    """Looks in Transformers' order: the single file, the index, else whatever weights are unambiguous."""
    names = listing(folder)
    indexes = [name for name in _weights(names) if name.endswith(INDEX_SUFFIX)]
    if SINGLE in names:
        return _open_files(folder, [folder / SINGLE])
    if INDEX in indexes or len(indexes) == 1:
        return _open_index(folder, folder / (INDEX if INDEX in indexes else indexes[0]))
    weights = [name for name in _weights(names) if name.endswith(SUFFIX)]
    if not weights:
        raise _no_weights(folder, names)
    stems = {shard_stem(name) or name for name in weights}
    if len(stems) > 1:
        some = ", ".join(map(shown, weights[:4])) + (", ..." if len(weights) > 4 else "")
        raise UsageError(f"{folder}: holds several checkpoints ({some}); name the file to open")
    check_numbers(weights, folder)
    return _open_files(folder, [folder / name for name in weights])


def _open_index(path: Path, index_path: Path) -> OpenedCheckpoint:
    folder = index_path.parent
    index = read_index(index_path)
    headers = {name: _shard_header(folder / name, index_path) for name in index.shards}
    check_index(index, headers)
    return _opened(path, folder, list(headers.values()), (index.source,))


def _shard_header(shard: Path, index_path: Path) -> Header:
    try:
        return read_header(shard)
    except SourceMissing as error:
        raise DamagedInput(f"names the shard {shown(shard.name)}, which is not there", file=index_path) from error


def _open_files(path: Path, weights: Sequence[Path]) -> OpenedCheckpoint:
    return _opened(path, weights[0].parent, [read_header(file) for file in weights], ())


def _opened(path: Path, folder: Path, headers: Sequence[Header], indexes: tuple[SourceFile, ...]) -> OpenedCheckpoint:
    return OpenedCheckpoint(
        format=NAME,
        path=path,
        files=(*(header.source for header in headers), *indexes),
        tensors=MappingProxyType(join(_all(headers))),
        metadata=MappingProxyType({key: Value("str", text) for key, text in _metadata(headers).items()}),
        sidecars=sidecars(folder),
    )


def _all(headers: Sequence[Header]) -> dict[str, TensorRef]:
    tensors: dict[str, TensorRef] = {}
    for header in headers:
        for name in tensors.keys() & header.tensors.keys():
            fault = f"tensor {shown(name)} is in {tensors[name].file.name} and in {header.source.path.name}"
            raise DamagedInput(fault, file=header.source.path, tensor=name)
        tensors.update(header.tensors)
    return tensors


def _metadata(headers: Sequence[Header]) -> Mapping[str, str]:
    """What all shards agree on under its own key; where they do not, under `file:key`, so that nothing is lost."""
    texts: dict[str, set[str]] = {}
    for header in headers:
        for key, text in header.metadata.items():
            texts.setdefault(key, set()).add(text)
    return {
        key if len(texts[key]) == 1 else f"{header.source.path.name}:{key}": text
        for header in headers
        for key, text in header.metadata.items()
    }


def _weights(names: Sequence[str]) -> list[str]:
    """The weight and index files; names with a leading dot are other programs' leftovers (`._model.safetensors`)."""
    return [name for name in names if name.endswith((SUFFIX, INDEX_SUFFIX)) and not name.startswith(".")]


def _no_weights(folder: Path, names: Sequence[str]) -> UnsupportedFormat:
    pickled = [name for name in names if name.startswith("pytorch_model") and name.endswith(".bin")]
    if pickled:
        return UnsupportedFormat(
            f"{folder}: holds {shown(pickled[0])} but no safetensors weights, and .bin files are not read",
            hint="most repositories have a revision with safetensors; Transformers' save_pretrained writes one",
        )
    return UnsupportedFormat(f"{folder}: holds no weights: neither {SINGLE}, {INDEX} nor another *{SUFFIX} file")
