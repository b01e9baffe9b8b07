"""Transformers' model of a checkpoint, without its weights: they come module by module when they are needed, and go again.

Transformers' own rules (what it applies when it loads and saves) say which of its parameters the Hugging Face tensors become:
experts that a checkpoint keeps apart lie in one parameter there.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterable, Mapping
from copy import deepcopy
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from hubclient.errors import EnvironmentFault, Unsupported
from hubclient.ground.strictjson import write_json
from hubclient.model import Request
from hubclient.spokes import gguf
from hubclient.spokes.packed import without_settings

if TYPE_CHECKING:
    import numpy as np
    import torch

    from hubclient.architectures.language.arrays import Array
    from hubclient.architectures.language.layouts import Bound, Matching
    from hubclient.formats.model import Encoding
    from hubclient.imatrix.rounding import Rounding
    from hubclient.model import Model
    from hubclient.rows import Reader

T = TypeVar("T")
_NEEDED = "pip install 'hubclient[torch,transformers]'"
_CLASSES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # models that write text


def require_libraries() -> None:
    """EnvironmentFault if PyTorch or a Transformers that can be used is missing."""
    try:
        import accelerate  # noqa: F401
        import torch  # noqa: F401
        from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: F401
    except ImportError as error:
        missing = error.name or "transformers"
        if missing.startswith("transformers."):
            missing = "transformers 5 or newer"
        raise EnvironmentFault(
            f"an importance matrix is computed with PyTorch and Transformers, and {missing} is missing", hint=_NEEDED
        ) from None


class Skeleton:
    """The model and its doors: modules by path, each with the rules for the tensors that it needs (see `walk`)."""

    def __init__(self, model: Model, tensors: Mapping[str, Array], matching: Matching, device: str) -> None:
        self.module = _made(model)
        self.device = device
        self._tensors = tensors
        self._where = str(model.opened.path)
        self._encodings = _encodings(model)
        self._renamings, self._converters = _rules(self.module)
        self._state = self.module.state_dict()
        self._targets = {name: self._target(name) for bound in matching.bound for name in bound.inputs}
        self.doors = self._grouped(matching)
        self.sizes = {path: sum(tensors[name].rows * tensors[name].columns for name in self.names(path)) for path in self.doors}
        for path, buffer in list(self.module.named_buffers()):
            if not buffer.is_meta:
                self._put(path, buffer)

    def names(self, path: str) -> list[str]:
        """The Hugging Face tensors behind a door."""
        return [name for bound in self.doors[path] for name in bound.inputs]

    def fill(self, path: str, reader: Reader) -> dict[str, torch.Tensor]:
        """Load what a door needs; returns the parameters behind it by full name. Unsupported names one that stays empty."""
        collected: dict[str, Any] = {}
        for name in sorted(self.names(path), key=_natural):
            target, pattern = self._targets[name]
            if pattern is None:
                self._put(target, _read(self._tensors[name], reader))
            else:
                rule = collected.setdefault(target, deepcopy(self._converters[pattern]))
                rule.add_tensor(target, name, pattern, _read(self._tensors[name], reader))
        for target in list(collected):
            made = collected.pop(target).convert(target, model=self.module, config=self.module.config)
            for name, value in made.items():
                self._put(name, value[0] if isinstance(value, list) else value)
        found = {f"{path}.{name}": value for name, value in self.module.get_submodule(path).named_parameters()}
        empty = next((name for name, value in found.items() if value.is_meta), None)
        if empty is not None:
            raise Unsupported(
                f"{self._where}: {type(self.module).__name__} of Transformers has a parameter {empty} for which there is no tensor"
            )
        return found

    def roundings(self, path: str) -> dict[str, Rounding]:
        """What the parameters behind a door are multiplied by is rounded to: those that a GGUF has in one encoding of few bits."""
        from hubclient.imatrix.rounding import rounding

        found: dict[str, set[Encoding]] = {}
        for bound in self.doors[path]:
            for name in bound.inputs:
                found.setdefault(self._targets[name][0], set()).update(self._encodings[output] for output in bound.outputs)
        kinds = {name: rounding(next(iter(own))) for name, own in found.items() if len(own) == 1}
        return {name: kind for name, kind in kinds.items() if kind is not None}

    def drop(self, path: str) -> None:
        """Let go of the weights behind a door."""
        from torch import nn

        module = self.module.get_submodule(path)
        for name, value in list(module.named_parameters()):
            owner, _, last = name.rpartition(".")
            module.get_submodule(owner)._parameters[last] = nn.Parameter(value.to("meta"), requires_grad=False)
        _hand_back()

    def stored(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Tensors in the shape of Transformers' parameters, by their names, as those of the checkpoint that they would be saved as."""
        from transformers.core_model_loading import revert_weight_conversion

        back: dict[str, torch.Tensor] = revert_weight_conversion(self.module, dict(values))
        return {name: value for name, value in back.items() if name in self._tensors}

    def renamed(self, found: Mapping[str, T]) -> dict[str, T]:
        """What is known of parameters that are Hugging Face tensors as they are, by the names of those."""
        return {name: found[target] for name, (target, pattern) in self._targets.items() if pattern is None and target in found}

    def _target(self, name: str) -> tuple[str, str | None]:
        """The parameter that a tensor becomes, and the pattern of the rule that makes it; None if it only gets its name."""
        from transformers.core_model_loading import rename_source_key

        rules = {id(rule): rule for rule in self._converters.values()}
        prefix = self.module.base_model_prefix
        target, pattern = rename_source_key(name, self._renamings, list(rules.values()), prefix, self._state)
        if target not in self._state:
            target, pattern = name, None
        if target not in self._state:
            raise Unsupported(
                f"{self._where}: {type(self.module).__name__} of Transformers has no parameter for the tensor {name}"
            )
        return target, pattern

    def _grouped(self, matching: Matching) -> dict[str, tuple[Bound, ...]]:
        """Rules by door: a block's together, of the others those of a module."""
        groups: dict[Any, list[Bound]] = {}
        for bound in matching.bound:
            block = dict(bound.captures).get("i")
            groups.setdefault(self._owner(bound.inputs[0]) if block is None else block, []).append(bound)
        paths = (_common(self._owner(name) for bound in bounds for name in bound.inputs) for bounds in groups.values())
        return dict(zip(paths, map(tuple, groups.values()), strict=True))

    def _owner(self, name: str) -> str:
        return self._targets[name][0].rpartition(".")[0]

    def _put(self, path: str, value: torch.Tensor) -> None:
        from torch import nn

        owner, _, name = path.rpartition(".")
        module = self.module.get_submodule(owner)
        value = value.to(self.device)
        expected = self._state.get(path)
        if expected is not None and expected.shape != value.shape:
            told = f"{list(value.shape)} where {type(self.module).__name__} of Transformers wants {list(expected.shape)}"
            raise Unsupported(f"{self._where}: what becomes {path} has the shape {told}")
        if name in module._parameters:
            module._parameters[name] = nn.Parameter(value, requires_grad=False)
        else:
            module._buffers[name] = value


def _encodings(model: Model) -> dict[str, Encoding]:
    """What each tensor is stored in in the GGUF that llama-imatrix would read: the source itself, or one of type "auto"."""
    if model.opened.format == "gguf":
        return {name: ref.encoding for name, ref in model.opened.tensors.items()}
    return {spec.name: spec.encoding for spec in gguf.write(model, Request(only="text")).spec.tensors}


def _made(model: Model) -> Any:
    """The model with parameters that have shapes alone, in float32, and with its buffers."""
    import transformers
    from accelerate import init_empty_weights

    where, raw = model.opened.path, without_settings(model.raw_config)
    names = (model.hf_class, *model.architecture.hf)
    name = next((name for name in names if name.endswith(_CLASSES)), None)
    if name is None or raw.get("is_encoder_decoder") or not hasattr(transformers, name):
        raise Unsupported(
            f"{where}: importance is measured while a decoder reads text, and {model.hf_class} of Transformers is none"
        )
    try:
        kind = getattr(transformers, name)
        with TemporaryDirectory() as folder, init_empty_weights(include_buffers=False):
            file = Path(folder, "config.json")  # Transformers reads some values from files alone
            file.write_bytes(write_json(raw))
            made = kind(kind.config_class.from_json_file(file))
    except Exception as error:
        told = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise Unsupported(f"{where}: Transformers cannot make a {name} of this config: {told}") from error
    if hasattr(made, "set_experts_implementation"):
        made.set_experts_implementation("eager")  # expert by expert, so that each product is with one of them
    return made.eval()


def _rules(module: Any) -> tuple[list[Any], dict[str, Any]]:
    """Transformers' rules for this model: renamings, and those that compute, by pattern. Kept for the way back as well."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming

    rules = get_model_conversion_mapping(module)
    converters = {pattern: rule for rule in rules if isinstance(rule, WeightConverter) for pattern in rule.source_patterns}
    return [rule for rule in rules if isinstance(rule, WeightRenaming)], converters


def _read(array: Array, reader: Reader) -> torch.Tensor:
    """A whole tensor as float32."""
    import numpy as np
    import torch

    values: np.ndarray[Any, Any] = array.read(0, array.rows, reader.floats).reshape(array.shape)
    return torch.from_numpy(np.require(values, np.float32, ["C", "W"]))


def _hand_back() -> None:
    """Give freed memory to the system: glibc keeps what lies below something in use, and soon more than a block of weights."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def _natural(name: str) -> list[int | str]:
    """Sorts numbers in names as numbers."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _common(owners: Iterable[str]) -> str:
    """The module that holds all of these."""
    levels = zip(*(owner.split(".") for owner in owners), strict=False)
    return ".".join(parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, levels))
