"""From an adapter's files to the inputs of the base network, and what is refused with words."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from serving_stack.edge_model.adapters import CONFIG, HEAD, INTENTS, WEIGHTS, Unfit, check_file, read

SHAPES: dict[str, list[int | str]] = {
    "ids": ["batch", "tokens"],
    "mask": ["batch", "tokens"],
    "head": [4, "classes"],
    "bias": ["classes"],
    "layer.0.query.down": [4, "rank"],
    "layer.0.query.up": ["rank", 4],
    "layer.0.out.down": [8, "rank"],
    "layer.0.out.up": ["rank", 4],
}


def made(rank: int = 2, classes: int = 3, seed: int = 7, **config: Any) -> dict[str, bytes]:
    """An adapter that changes one of the two layers."""
    chance = np.random.default_rng(seed)
    weights = {
        "base_model.model.layer.0.query.lora_A.weight": chance.normal(size=(rank, 4)).astype(np.float16),
        "base_model.model.layer.0.query.lora_B.weight": chance.normal(size=(4, rank)).astype(np.float16),
    }
    head = {"weight": chance.normal(size=(classes, 4)).astype(np.float16), "bias": np.zeros(classes, np.float16)}
    about = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none"} | config
    return {
        CONFIG: json.dumps(about).encode(),
        WEIGHTS: save(weights),
        HEAD: save(head),
        INTENTS: json.dumps([f"intent{n}" for n in range(classes)]).encode(),
    }


def weights(**tensors: Any) -> dict[str, bytes]:
    return made() | {
        WEIGHTS: save({f"base_model.model.layer.0.{name.replace('__', '.')}.weight": t for name, t in tensors.items()})
    }


def test_the_product_of_both_matrices_is_scaled_as_peft_does() -> None:
    files = made(rank=2)
    adapter = read(files, SHAPES)
    from safetensors.numpy import load

    stored = load(files[WEIGHTS])
    a = stored["base_model.model.layer.0.query.lora_A.weight"].astype(np.float32)
    b = stored["base_model.model.layer.0.query.lora_B.weight"].astype(np.float32)
    product = adapter.inputs["layer.0.query.down"] @ adapter.inputs["layer.0.query.up"]
    assert np.allclose(product, (2.0 * b @ a).T, atol=1e-5)
    assert set(adapter.inputs) == set(SHAPES) - {"ids", "mask"}
    assert all(value.dtype == np.float32 and value.flags.c_contiguous for value in adapter.inputs.values())
    assert adapter.bytes == sum(value.nbytes for value in adapter.inputs.values())
    assert adapter.intents.tolist() == [b"intent0", b"intent1", b"intent2"]


def test_a_layer_that_it_leaves_alone_gets_zeros() -> None:
    adapter = read(made(), SHAPES)
    assert not adapter.inputs["layer.0.out.down"].any() and adapter.inputs["layer.0.out.down"].shape == (8, 2)
    assert adapter.inputs["layer.0.out.up"].shape == (2, 4)


def test_layers_of_different_rank_are_brought_to_one() -> None:
    pair = {"query__lora_A": np.ones((1, 4), np.float32), "query__lora_B": np.ones((4, 1), np.float32)}
    pair |= {"out__lora_A": np.ones((3, 8), np.float32), "out__lora_B": np.ones((4, 3), np.float32)}
    adapter = read(weights(**pair) | {CONFIG: json.dumps({"peft_type": "LORA", "lora_alpha": 6}).encode()}, SHAPES)
    assert adapter.inputs["layer.0.query.down"].shape == (4, 3) and adapter.inputs["layer.0.out.up"].shape == (3, 4)
    assert np.allclose(adapter.inputs["layer.0.query.down"] @ adapter.inputs["layer.0.query.up"], 6.0)
    assert np.allclose(adapter.inputs["layer.0.out.down"] @ adapter.inputs["layer.0.out.up"], 6.0)


def test_rank_stabilised_and_patterned_scales() -> None:
    plain, root = read(made(rank=4), SHAPES), read(made(rank=4, use_rslora=True), SHAPES)
    assert np.allclose(root.inputs["layer.0.query.up"], 2 * plain.inputs["layer.0.query.up"])
    named = read(made(rank=4, alpha_pattern={"query": 4}), SHAPES)
    assert np.allclose(named.inputs["layer.0.query.up"], plain.inputs["layer.0.query.up"] / 2)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({k: v for k, v in made().items() if k != HEAD}, "head.safetensors is missing"),
        (made() | {CONFIG: b"{"}, "not readable"),
        (made() | {WEIGHTS: made()[WEIGHTS][:100]}, "not readable"),
        (made() | {CONFIG: json.dumps({"peft_type": "PREFIX_TUNING"}).encode()}, "not that of a LoRA adapter"),
        (made(use_dora=True), "uses use_dora"),
        (made(bias="all"), "uses bias"),
        (made(lora_alpha=None), "says no lora_alpha"),
        (made() | {INTENTS: b'["one", ""]'}, "no list of names"),
        (made() | {INTENTS: b'["one", "two"]'}, r"wrong shape: \[3, 4\] and \[3\], not \[2, 4\] and \[2\]"),
        (made() | {WEIGHTS: save({})}, "holds no LoRA matrix"),
        (made() | {WEIGHTS: save({"pooler.weight": np.ones(2)})}, "'pooler.weight', which is no LoRA matrix"),
        (weights(query__lora_A=np.ones((2, 4))), "not both of its matrices"),
        (weights(query__lora_A=np.ones((2, 5)), query__lora_B=np.ones((4, 2))), "wrong shape"),
        (weights(query__lora_A=np.ones((2, 4)), query__lora_B=np.ones((4, 3))), "wrong shape"),
        (
            weights(other__lora_A=np.ones((2, 4)), other__lora_B=np.ones((4, 2))),
            "layer.0.other, which the base network does not have",
        ),
        (weights(query__lora_A=np.full((2, 4), np.nan), query__lora_B=np.ones((4, 2))), "no numbers"),
    ],
)
def test_what_does_not_fit_is_refused_with_words(files: dict[str, bytes], words: str) -> None:
    with pytest.raises(Unfit, match=words):
        read(files, SHAPES)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([CONFIG, WEIGHTS, HEAD, INTENTS]), st.binary(max_size=200), st.integers(0, 400))
def test_bytes_are_an_adapter_or_unfit(name: str, junk: bytes, at: int) -> None:
    files = made()
    content = files[name]
    try:
        read(files | {name: content[:at] + junk + content[at + len(junk) :]}, SHAPES)
    except Unfit as error:
        assert str(error)


def test_a_file_that_is_not_the_published_one_is_refused() -> None:
    check_file("head.safetensors", b"as published", hashlib.sha256(b"as published").hexdigest())
    with pytest.raises(Unfit, match=r"head.safetensors is not the file that was published"):
        check_file("head.safetensors", b"as publishes", hashlib.sha256(b"as published").hexdigest())
