"""Fine-tuning by LoRA, prefix or in full: deterministic per seed, a checkpoint per epoch, resumable, on one or many processes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving_stack import network as net

# isort: split
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from torch import Tensor, nn

from serving_stack import tune_state as state
from serving_stack.banking import Question
from serving_stack.recipe import Recipe, average_at, batches, factor_at, half_way, share
from serving_stack.recipe import chosen as chosen
from serving_stack.tune_calibration import cool, temperature
from serving_stack.tune_data import Labelled, banking
from serving_stack.tune_loss import hidden, objective, twice
from serving_stack.tune_shards import like, whole

BATCH = 64
"""Questions per step where nothing is learned."""
_SHARPNESS = 20.0
"""How far apart the head's first logits are: times the cosine between a question and the mean of a class."""


@dataclass(frozen=True)
class Progress:
    """Where tuning is, for whoever shows it. `validation` comes once per epoch; NaN where nothing is held out."""

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


@torch.inference_mode()
def over(ask: Callable[[Tensor, Tensor], Tensor], ids: list[list[int]], device: torch.device | None = None) -> Tensor:
    """What a network gives for all questions, in their order: float32 [questions, ...], on the CPU. Alike lengths go together."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    parts = []
    for start in range(0, len(order), BATCH):
        rows, mask = padded([ids[i] for i in order[start : start + BATCH]])
        parts.append(ask(rows.to(device), mask.to(device)).float().cpu())
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts)[back].clone()


def accuracy(network: net.IntentNetwork, ids: list[list[int]], labels: list[int], device: torch.device | None = None) -> float:
    """Share of right answers, 0..1; NaN without questions."""
    if not ids:
        return float("nan")
    network.eval()
    best = over(network, ids, device).argmax(1)
    return float((best == torch.tensor(labels)).float().mean())


def encode(tokenizer: Tokenizer, part: list[Question], labels: list[str]) -> tuple[list[list[int]], list[int]]:
    """Token ids and class numbers."""
    number = {name: i for i, name in enumerate(labels)}
    return [e.ids for e in tokenizer.encode_batch([q.text for q in part])], [number[q.intent] for q in part]


class Tuning:
    """One tuning run in a folder: `epoch-NN/` holds what may be chosen, `state/` what resuming needs.

    `teachers` are folders of tuned models whose mean answers are learned besides the labels. `start` is a network to begin with
    in place of the base model: of the kind that the recipe's method trains. `keep` mends the network after each step. Started by
    `accelerate launch`, the processes share each batch, and the result is that of one process but for rounding and dropout.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        data: Labelled | None = None,
        teachers: tuple[Path, ...] = (),
        start: net.IntentNetwork | None = None,
        keep: Callable[[nn.Module], None] = lambda _: None,
    ) -> None:
        self.folder, self.recipe, self.data, self.keep = folder, recipe, data or banking(), keep
        self.accelerator = Accelerator(cpu=not torch.accelerator.is_available())  # said, or it would not join processes on CPUs
        torch.manual_seed(recipe.seed)
        tokenizer = net.tokenizer()
        kept, held = self.data.split(recipe.validation, recipe.seed)
        self.ids, self.labels = encode(tokenizer, kept, self.data.labels)
        self.held = encode(tokenizer, held, self.data.labels)
        self.network = start or net.fresh(len(self.data.labels), recipe)
        self.about = state.About(recipe, self.data.digest, state.digests(teachers))
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self.network.to(self.device)
        if start is None and not state.exists(folder):
            self._point_head()
        with self._precision():
            self.teacher = _mean_answers(teachers, self.ids, self.device) if teachers else None
        groups = [
            {"params": [p for p in part.parameters() if p.requires_grad], "peak": peak}
            for part, peak in ((self.network.body, recipe.rate), (self.network.head, recipe.head_rate))
        ]
        optimizer = torch.optim.AdamW(groups, lr=recipe.rate, weight_decay=recipe.decay, fused=True)
        self.model, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        self.network = self.accelerator.unwrap_model(self.model)
        self.trained = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        self.mean = {name: p.detach().clone() for name, p in self.trained.items()}
        self._resume()

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        found: torch.device = self.accelerator.device
        return found

    def run(self, tell: Callable[[Progress], None]) -> list[dict[str, float]]:
        """Train what is left, a checkpoint after each epoch; returns per epoch: loss, validation (accuracy), seconds."""
        for epoch in range(len(self.history), self.recipe.epochs):
            start = time.monotonic()
            loss = self._epoch(epoch, tell)
            last = self._swap(self.mean) if self.recipe.average else None
            score, warmth = self._validate()
            took = time.monotonic() - start
            self.seconds += took
            self.history.append({"epoch": epoch + 1, "loss": loss, "validation": score, "temperature": warmth, "seconds": took})
            self._keep_epoch(warmth)
            if last:
                self._swap(last)
            state.write(self.folder, self.about, self.history, self.seconds, self._tensors(), self.accelerator.is_main_process)
            self.accelerator.wait_for_everyone()
            steps = self.recipe.epochs * -(-len(self.ids) // self.recipe.batch)
            tell(Progress(epoch + 1, (epoch + 1) * steps // self.recipe.epochs, steps, loss, score))
        return self.history

    def adapter(self, epoch: int) -> Path:
        """The folder of one epoch's weights; epochs count from 1."""
        return self.folder / f"epoch-{epoch:02d}"

    def _epoch(self, epoch: int, tell: Callable[[Progress], None]) -> float:
        recipe, process, processes = self.recipe, self.accelerator.process_index, self.accelerator.num_processes
        # Seeded per epoch, so that a resumed run draws the same batches and dropout as one that was never stopped.
        torch.manual_seed((recipe.seed * 1000 + epoch) * 1000 + process)
        plan = batches([len(row) for row in self.ids], recipe.batch, random.Random(f"{recipe.seed}:{epoch}"))
        steps = len(plan) * recipe.epochs
        self.model.train()
        total = 0.0
        for i, batch in enumerate(plan):
            step = epoch * len(plan) + i
            for group in self.optimizer.param_groups:
                group["lr"] = group["peak"] * factor_at(step, steps, recipe)
            rows, factor = share(batch, process, processes)
            loss = self._loss(rows) * factor
            self.optimizer.zero_grad()
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.trained.values(), 1.0)
            self.optimizer.step()
            self.keep(self.network)
            with torch.no_grad():
                kept = average_at(step, recipe)
                torch._foreach_lerp_(list(self.mean.values()), [p.detach() for p in self.trained.values()], 1 - kept)
            total += float(self.accelerator.reduce(loss.detach(), "mean"))
            tell(Progress(epoch + 1, step + 1, steps, total / (i + 1)))
        return total / len(plan)

    def _loss(self, rows: list[int]) -> Tensor:
        ids, mask = padded([self.ids[r] for r in rows])
        if self.recipe.masking:
            ids = hidden(ids, self.recipe.masking)
        labels = torch.tensor([self.labels[r] for r in rows])
        soft = self.teacher[torch.tensor(rows)] if self.teacher is not None else None
        if self.recipe.agreement:
            ids, mask, labels = twice(ids), twice(mask), twice(labels)
            soft = None if soft is None else twice(soft)
        with self._precision():
            logits = self.model(ids.to(self.device), mask.to(self.device)).float()
        return objective(logits, labels.to(self.device), self.recipe, None if soft is None else soft.to(self.device))

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def _point_head(self) -> None:
        """The head starts at the means of the classes, as the base model sees them: far better than chance at once."""
        self.network.eval()
        with self._precision():
            seen = over(self.network.pooled, self.ids, self.device)
        numbers = torch.tensor(self.labels)
        unit = nn.functional.normalize(seen)
        means = torch.stack([unit[numbers == i].sum(0) for i in range(len(self.data.labels))])
        with torch.no_grad():
            self.network.head.weight.copy_(nn.functional.normalize(means) * _SHARPNESS / seen.norm(dim=1).mean())
            self.network.head.bias.zero_()

    @torch.no_grad()
    def _swap(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put weights into the network; returns those that were there."""
        before = {name: p.detach().clone() for name, p in self.trained.items()}
        for name, p in self.trained.items():
            p.copy_(weights[name])
        self.keep(self.network)
        return before

    def _validate(self) -> tuple[float, float]:
        """(accuracy, temperature) on what is held out; NaN and the recipe's temperature where nothing is."""
        if not self.held[0]:
            return float("nan"), self.recipe.temperature
        self.network.eval()
        answers, labels = over(self.network, self.held[0], self.device), torch.tensor(self.held[1])
        return float((answers.argmax(1) == labels).float().mean()), temperature(answers, labels)

    def _keep_epoch(self, warmth: float) -> None:
        """Keep this epoch's weights, as sure as they should be, and let go of those that cannot be chosen any more."""
        main = self.accelerator.is_main_process
        cool(self.network.head, warmth)
        net.save(self.network, self.adapter(len(self.history)), self.data.labels, write=main)
        cool(self.network.head, 1 / warmth)
        if main:
            state.forget_epochs(self.folder, self._may_be_chosen())

    def _may_be_chosen(self) -> set[int]:
        half = half_way(self.recipe.epochs)
        later = self.history[half:]
        best = max(later, key=lambda row: (row["validation"], row["epoch"]))["epoch"] if later else half
        return {min(half, len(self.history)), int(best), len(self.history)}

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"weight.{name}": whole(p.detach()) for name, p in self.trained.items()}
        tensors |= {f"mean.{name}": whole(value) for name, value in self.mean.items()}
        for name, p in self.trained.items():
            tensors |= {f"{kind}.{name}": whole(value) for kind, value in self.optimizer.state[p].items()}
        return tensors

    def _resume(self) -> None:
        found = state.read(self.folder, self.about)
        if found is None:
            return
        self.history, self.seconds, tensors = found
        with torch.no_grad():
            for name, p in self.trained.items():
                p.copy_(like(tensors[f"weight.{name}"], p))
                self.mean[name].copy_(like(tensors[f"mean.{name}"], p))
                self.optimizer.state[p] = {kind: like(tensors[f"{kind}.{name}"], p) for kind in ("step", "exp_avg", "exp_avg_sq")}


def _mean_answers(teachers: tuple[Path, ...], ids: list[list[int]], device: torch.device) -> Tensor:
    """The mean logits of tuned models for all questions: [questions, classes]."""
    return torch.stack([over(net.load_merged(folder).to(device), ids, device) for folder in teachers]).mean(0)
