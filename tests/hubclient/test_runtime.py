"""Our GGUFs in the real llama.cpp: it loads them, tokenises as the Hugging Face files do, and computes what Transformers does."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import numpy as np
import pytest
from golden import EXCEPTIONS, TEXTS, TYPES, Golden, Workshop, goldens
from libllama import Vocabulary

pytestmark = pytest.mark.llama

# llama.cpp knows some sizes by heart and does not load the reference's own file of a tiny model (DeepSeek V2 Lite).
LOADED = [golden for golden in goldens() if golden.record["runtime_check"].get("loads") is not False]
EACH = pytest.mark.parametrize("golden", LOADED, ids=lambda golden: golden.name)
CAUSAL = pytest.mark.parametrize("golden", [one for one in LOADED if one.kind == "causal"], ids=lambda golden: golden.name)
# llama.cpp computes from the reference's own file of this one something else than Transformers does; as from ours.
UNLIKE = ("t5_encoder",)
RUN_ALIKE = [golden for golden in goldens("encoder") if golden.name not in UNLIKE]
ENCODER = pytest.mark.parametrize("golden", RUN_ALIKE, ids=lambda golden: golden.name)

AGREES = 0.02  # largest difference of a log-probability (the golden README's): the key/value cache is half precision
# bf16 products, and activations that are quantised as the weights are: the runtime's own rounding, not the file's
LOOSELY = {"f32": AGREES, "auto": 0.06, "q8_0": 0.6}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("runtime"))


def serve(golden: Golden, kind: str, workshop: Workshop, *, pooling: str | None = None) -> Any:
    """llama.cpp with this model, from `pooling` on as an encoder whose vectors are not normalised."""
    from xllamacpp import CommonParams, Server, llama_pooling_type

    parameters = CommonParams()
    parameters.model.path = str(workshop.gguf(golden, kind))
    parameters.warmup, parameters.verbosity = False, -1
    parameters.n_ctx = 256  # what all goldens were trained for; beyond it LongRoPE takes other factors
    if pooling is not None:
        parameters.embedding, parameters.embd_normalize = True, -1
        parameters.pooling_type = getattr(llama_pooling_type, f"LLAMA_POOLING_TYPE_{pooling}")
    return Server(parameters)


def log_probabilities(golden: Golden, kind: str, workshop: Workshop) -> np.ndarray:
    """Of every token after the golden's ids."""
    count = len(golden.logits)
    question = {"prompt": [golden.ids], "max_tokens": 1, "temperature": 0, "logprobs": count}
    question["logit_bias"] = [
        ["a", 100.0]
    ]  # something printable is sampled, or there would be no answer; what is asked for stays
    (choice,) = serve(golden, kind, workshop).handle_completions(question)["choices"]
    (step,) = choice["logprobs"]["content"]
    found = np.full(count, np.nan)
    for item in step["top_logprobs"]:
        found[item["id"]] = item["logprob"]
    return found


def vector(golden: Golden, kind: str, workshop: Workshop, pooling: str) -> list[float]:
    answer = serve(golden, kind, workshop, pooling=pooling).handle_embeddings({"input": [golden.ids], "model": "m"})
    result: list[float] = answer["data"][0]["embedding"]
    return result


@CAUSAL
@pytest.mark.parametrize("kind", TYPES)
def test_log_probabilities_are_those_of_transformers(golden: Golden, kind: str, workshop: Workshop):
    assert golden.record["runtime_check"]["agrees"]
    logits = np.array(golden.logits)
    expected = logits - logits.max()
    expected -= np.log(np.exp(expected).sum())
    difference = np.abs(log_probabilities(golden, kind, workshop) - expected).max()
    assert difference < LOOSELY[kind]


@ENCODER
@pytest.mark.parametrize(("pooling", "key"), [("MEAN", "mean_pooled"), ("CLS", "first"), ("LAST", "last_logits")])
def test_embeddings_are_those_of_transformers(golden: Golden, pooling: str, key: str, workshop: Workshop):
    assert golden.record["runtime_check"]["agrees"] == (golden.name not in EXCEPTIONS)
    expected = np.array(golden.record["transformers"][key])
    difference = np.abs(np.array(vector(golden, "f32", workshop, pooling)) - expected).max()
    assert difference < 1e-3 * golden.record["runtime_check"]["scale"]


@ENCODER
@pytest.mark.parametrize("kind", TYPES)
def test_embeddings_point_the_same_way_in_every_type(golden: Golden, kind: str, workshop: Workshop):
    found, expected = np.array(vector(golden, kind, workshop, "MEAN")), np.array(golden.record["transformers"]["mean_pooled"])
    assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.9995


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("golden", goldens("classifier"), ids=lambda golden: golden.name)
def test_scores_are_those_of_transformers(golden: Golden, kind: str, workshop: Workshop):
    (expected,) = golden.logits
    if golden.name in EXCEPTIONS:
        assert golden.record["runtime_check"]["max_abs_diff"] > 0.5  # what the reference's file gives, without the pooler
    found = vector(golden, kind, workshop, "RANK")[0]
    assert abs(found - expected) < {"f32": 1e-3, "auto": 1e-3, "q8_0": 2e-2}[kind]


@EACH
def test_llama_cpp_tokenises_as_tokenizer_json_does(golden: Golden, workshop: Workshop):
    from tokenizers import Tokenizer

    expected = Tokenizer.from_file(str(golden.checkpoint / "tokenizer.json"))
    wordpiece = golden.record["tokenizer_kind"] == "wp"  # llama.cpp knows no longest word, WordPiece has 100 letters
    texts = TEXTS[:-1] if wordpiece else golden.texts
    if golden.kind == "encdec":  # which the server does not load
        vocabulary = Vocabulary(workshop.gguf(golden, "f32"))
        assert [vocabulary.encode(text, special=True) for text in texts] == [expected.encode(text).ids for text in texts]
        return
    server = serve(golden, "f32", workshop, pooling=None if golden.kind == "causal" else "MEAN")
    for text in texts:
        assert tokenised(server, text) == expected.encode(text).ids, text


def tokenised(server: Any, text: str) -> list[int]:
    """By the server's own loopback port."""
    body = json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()
    request = urllib.request.Request(f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        found: list[int] = json.load(answer)["tokens"]
    return found
