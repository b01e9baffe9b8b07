"""Both files of a model with vision in the real llama.cpp, which makes the same vectors of an image as Transformers does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden import Golden, Workshop, vision_goldens
from libmtmd import image_vectors

pytestmark = [pytest.mark.llama, pytest.mark.torch]

EACH = pytest.mark.parametrize("golden", vision_goldens(), ids=lambda golden: golden.name)

# Pixels to a side, so that neither program resizes the image; Qwen's tower takes any size, from four tokens on.
SIDE = {"qwen2_vl": 112}
# The largest difference: sums in float16 and the tanh form of GELU; then bf16 products, and activations that are quantised
# as the weights are. Values are up to 2.3.
CLOSE = {"f32": 3e-3, "auto": 3e-2, "q8_0": 0.2}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("vision"))


def picture(golden: Golden) -> np.ndarray:
    side = SIDE.get(golden.name, 56)
    return np.random.default_rng(7).integers(0, 256, (side, side, 3), dtype=np.uint8)


def by_transformers(golden: Golden, pixels: np.ndarray) -> np.ndarray:
    """The vectors that Transformers puts in the place of an image's tokens, from the golden's own checkpoint."""
    import torch
    import transformers

    model = getattr(transformers, golden.config["architectures"][0]).from_pretrained(golden.checkpoint, dtype=torch.float32)
    inner = model.eval().model
    values = torch.tensor(prepared(golden, pixels))
    with torch.no_grad():
        if golden.name == "qwen2_vl":
            side = pixels.shape[0] // 14
            found = inner.get_image_features(torch.tensor(in_patches(prepared(golden, pixels))), torch.tensor([[1, side, side]]))
        elif golden.name == "mistral3":
            found = inner.get_image_features(values, torch.tensor([pixels.shape[:2]]))
        elif golden.name == "llava":
            return class_token_last(inner, values)
        else:
            found = inner.get_image_features(values)
    vectors = getattr(found, "pooler_output", found)
    vectors = vectors[0] if isinstance(vectors, list | tuple) else vectors
    result: np.ndarray = vectors.reshape(-1, vectors.shape[-1]).numpy()
    return with_breaks(golden, model, result) if golden.name == "mistral3" else result


def prepared(golden: Golden, pixels: np.ndarray) -> np.ndarray:
    """An image as the tower takes it: (1, colours, height, width), normalised."""
    settings = json.loads((golden.checkpoint / "preprocessor_config.json").read_text())
    mean, std = (np.array(settings[key], np.float32) for key in ("image_mean", "image_std"))
    result: np.ndarray = ((pixels.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
    return result


def in_patches(image: np.ndarray) -> np.ndarray:
    """As Qwen's image processor cuts an image: patches in squares of two by two, the one frame twice."""
    side = image.shape[-1] // 28
    cut = image[0].reshape(3, side, 2, 14, side, 2, 14).transpose(1, 4, 2, 5, 0, 3, 6)
    return np.stack([cut, cut], axis=5).reshape(side * side * 4, -1)


def with_breaks(golden: Golden, model: Any, vectors: np.ndarray) -> np.ndarray:
    """With the token [IMG_BREAK] between the rows of a square image, which Transformers' processor writes into the prompt."""
    tokens = json.loads((golden.checkpoint / "tokenizer.json").read_text())["added_tokens"]
    (index,) = [token["id"] for token in tokens if token["content"] == "[IMG_BREAK]"]
    row = model.get_input_embeddings().weight[index].detach().numpy()[None]
    rows = np.split(vectors, int(len(vectors) ** 0.5))
    return np.concatenate([part for vector in rows for part in (vector, row)][:-1])


def class_token_last(inner: Any, values: Any) -> np.ndarray:
    """What llama.cpp makes of LLaVA: since its issue 25814 the class token stands behind the patches, not before them.

    So each patch has its neighbour's position and the class token is taken for the last patch. Everything else is
    Transformers' own.
    """
    import torch

    tower = getattr(inner.vision_tower, "vision_model", inner.vision_tower)
    patches = tower.embeddings.patch_embedding(values).flatten(2).transpose(1, 2)
    token = tower.embeddings.class_embedding.reshape(1, 1, -1)
    states = tower.pre_layrnorm(torch.cat([patches, token], 1) + tower.embeddings.position_embedding.weight[None])
    for layer in tower.encoder.layers[:-1]:
        states = layer(states, None)
        states = states[0] if isinstance(states, tuple) else states
    result: np.ndarray = inner.multi_modal_projector(states[:, 1:])[0].numpy()
    return result


@pytest.mark.parametrize("kind", CLOSE)
@EACH
def test_an_image_gives_the_vectors_that_transformers_makes(golden: Golden, kind: str, workshop: Workshop):
    text, pixels = workshop.gguf(golden, kind), picture(golden)
    found, expected = image_vectors(text, workshop.projector(text), pixels), by_transformers(golden, pixels)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < CLOSE[kind]


@EACH
def test_another_image_gives_other_vectors(golden: Golden, workshop: Workshop):
    text, pixels = workshop.gguf(golden, "f32"), picture(golden)
    one, two = (image_vectors(text, workshop.projector(text), image) for image in (pixels, 255 - pixels))
    assert np.abs(one - two).max() > 0.05


@pytest.mark.parametrize("golden", [golden for golden in vision_goldens() if golden.name == "mistral3"], ids=["mistral3"])
def test_what_the_reference_leaves_out_is_what_llama_cpp_asks_for(golden: Golden, workshop: Workshop, tmp_path: Path):
    """Without the row of [IMG_BREAK] llama.cpp does not load the file; its own converter forgets it (issue 24235)."""
    text, without = workshop.gguf(golden, "f32"), tmp_path / "mmproj.gguf"
    without.write_bytes(workshop.projector(text).read_bytes().replace(b"img_break", b"forgotten"))
    with pytest.raises(AssertionError, match=r"llama\.cpp refuses"):
        image_vectors(text, without, picture(golden))
