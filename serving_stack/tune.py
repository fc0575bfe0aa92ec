"""Fine-tuning by LoRA on BANKING77: deterministic per seed, a checkpoint per epoch, resumable."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving_stack import network as net

# isort: split
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from serving_stack.banking import Question, digest, hold_out, intents, questions
from serving_stack.recipe import Recipe, batches, chosen, rate_at
from trimtab.errors import TrimtabError


@dataclass(frozen=True)
class Progress:
    """Where tuning is, for whoever shows it."""

    epoch: int
    step: int
    steps: int
    loss: float
    validation: float | None = None


def padded(ids: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Token ids of several lengths -> (ids, mask), both int64 [batch, longest]."""
    longest = max(len(row) for row in ids)
    mask = torch.zeros(len(ids), longest, dtype=torch.long)
    out = torch.zeros(len(ids), longest, dtype=torch.long)
    for i, row in enumerate(ids):
        out[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return out, mask


def _encode(tokenizer: Tokenizer, part: list[Question]) -> tuple[list[list[int]], list[int]]:
    number = {name: i for i, name in enumerate(intents())}
    return [e.ids for e in tokenizer.encode_batch([q.text for q in part])], [number[q.intent] for q in part]


@torch.inference_mode()
def accuracy(network: net.IntentNetwork, ids: list[list[int]], labels: list[int]) -> float:
    """Share of right answers, 0..1."""
    network.eval()
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    right = 0
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        best = network(*padded([ids[i] for i in rows])).argmax(1)
        right += int((best == torch.tensor([labels[i] for i in rows])).sum())
    return right / len(ids)


class Tuning:
    """One tuning run in a folder: `epoch-NN/` holds the adapter of each epoch, `state/` what resuming needs."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        torch.manual_seed(recipe.seed)
        self.network = net.fresh(len(intents()), recipe.rank, recipe.dropout)
        self.trained = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(self.trained.values(), lr=recipe.rate, weight_decay=recipe.decay)
        tokenizer = net.tokenizer()
        kept, held = hold_out(questions("train"), recipe.validation, recipe.seed)
        self.ids, self.labels = _encode(tokenizer, kept)
        self.held = _encode(tokenizer, held)
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self._resume()

    def run(self, tell: Callable[[Progress], None]) -> list[dict[str, float]]:
        """Train what is left, a checkpoint after each epoch; returns per epoch: loss, validation (accuracy), seconds."""
        for epoch in range(len(self.history), self.recipe.epochs):
            start = time.monotonic()
            loss = self._epoch(epoch, tell)
            score = accuracy(self.network, *self.held)
            self.seconds += time.monotonic() - start
            self.history.append({"epoch": epoch + 1, "loss": loss, "validation": score, "seconds": time.monotonic() - start})
            self._checkpoint()
            steps = self.recipe.epochs * -(-len(self.ids) // self.recipe.batch)
            tell(Progress(epoch + 1, (epoch + 1) * steps // self.recipe.epochs, steps, loss, score))
        return self.history

    def _epoch(self, epoch: int, tell: Callable[[Progress], None]) -> float:
        recipe = self.recipe
        # Seeded per epoch, so that a resumed run draws the same batches and dropout as one that was never stopped.
        torch.manual_seed(recipe.seed * 1000 + epoch)
        plan = batches([len(row) for row in self.ids], recipe.batch, random.Random(f"{recipe.seed}:{epoch}"))
        steps = len(plan) * recipe.epochs
        self.network.train()
        total = 0.0
        for i, rows in enumerate(plan):
            step = epoch * len(plan) + i
            for group in self.optimizer.param_groups:
                group["lr"] = rate_at(step, steps, recipe)
            logits = self.network(*padded([self.ids[r] for r in rows]))
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor([self.labels[r] for r in rows]))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
            self.optimizer.step()
            total += loss.item()
            tell(Progress(epoch + 1, step + 1, steps, total / (i + 1)))
        return total / len(plan)

    def adapter(self, epoch: int) -> Path:
        """The folder of one epoch's adapter; epochs count from 1."""
        return self.folder / f"epoch-{epoch:02d}"

    def _checkpoint(self) -> None:
        net.save_adapter(self.network, self.adapter(len(self.history)))
        state = self.folder / "state"
        state.mkdir(parents=True, exist_ok=True)
        tensors = {f"weight.{name}": p.detach() for name, p in self.trained.items()}
        for name, p in self.trained.items():
            tensors |= {f"{kind}.{name}": value for kind, value in self.optimizer.state[p].items()}
        name = f"epoch-{len(self.history):02d}.safetensors"
        save_file(tensors, state / name)
        about = {
            "recipe": asdict(self.recipe),
            "history": self.history,
            "seconds": self.seconds,
            "tensors": name,
            "data": digest(),
        }
        temporary = state / "progress.tmp"
        temporary.write_text(json.dumps(about, indent=1))
        temporary.replace(state / "progress.json")  # last: whoever reads it finds tensors that are whole
        for old in state.glob("epoch-*.safetensors"):
            if old.name != name:
                old.unlink()

    def _resume(self) -> None:
        progress = self.folder / "state" / "progress.json"
        if not progress.exists():
            return
        about = json.loads(progress.read_text())
        if about["recipe"] != asdict(self.recipe) or about["data"] != digest():
            raise TrimtabError(f"{self.folder} holds a run of other settings or data: choose another --out or delete it")
        tensors = load_file(progress.parent / about["tensors"])
        with torch.no_grad():
            for name, p in self.trained.items():
                p.copy_(tensors[f"weight.{name}"])
                self.optimizer.state[p] = {k: tensors[f"{k}.{name}"] for k in ("step", "exp_avg", "exp_avg_sq")}
        self.history, self.seconds = about["history"], about["seconds"]


def cards(tuning: Tuning) -> Iterator[tuple[Path, dict[str, Any]]]:
    """For each chosen version: the adapter's folder and its result card, also written there as `card.json`."""
    trained = sum(p.numel() for p in tuning.trained.values())
    for version, epoch in enumerate(chosen(tuning.history), start=1):
        row = tuning.history[epoch - 1]
        card: dict[str, Any] = {
            "version": version,
            "base": net.BASE,
            "data": {
                "name": "BANKING77",
                "licence": "CC BY 4.0",
                "sha256": digest(),
                "train": len(tuning.ids),
                "validation": len(tuning.held[0]),
            },
            "recipe": asdict(tuning.recipe),
            "trained_parameters": trained,
            "epoch": epoch,
            "validation_accuracy": round(row["validation"], 4),
            "tuning_seconds": round(sum(r["seconds"] for r in tuning.history[:epoch])),
            "processor": {"threads": torch.get_num_threads(), "cores": os.cpu_count()},
        }
        folder = tuning.adapter(epoch)
        (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
        yield folder, card
