"""Fewer layers, fewer weights: what is kept, and that it still answers."""

import csv
import json

import pytest

from serving_stack.banking import questions
from trimtab.errors import Missing, TrimtabError

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from torch import nn  # noqa: E402

from serving_stack import compress  # noqa: E402


class Encoder(nn.Module):
    """Named as a network's encoder is, a few weights large."""

    def __init__(self):
        super().__init__()
        self.layer = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 4)])
        self.head = nn.Linear(4, 2)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.encoder = Encoder()


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_the_smallest_weights_of_all_layers_together_become_zero(sparsity):
    network, whole = Small(), Small()
    masks = compress.prune(network, sparsity)
    assert compress.zeros(network) == pytest.approx(sparsity, abs=0.01)
    kept = torch.cat([whole.state_dict()[name][mask].abs() for name, mask in masks.items()])
    gone = torch.cat([whole.state_dict()[name][~mask].abs() for name, mask in masks.items()])
    assert gone.max() <= kept.min()
    assert torch.equal(network.encoder.head.weight, whole.encoder.head.weight)
    assert torch.equal(network.encoder.layer[0].bias, whole.encoder.layer[0].bias)


def test_zeros_stay_zeros_after_a_step():
    network = Small()
    keep = compress.holding(compress.prune(network, 0.5))
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.25)
    assert compress.zeros(network) == 0
    keep(network)
    assert compress.zeros(network) == pytest.approx(0.5, abs=0.01)


@pytest.fixture
def texts(tmp_path):
    file = tmp_path / "texts.jsonl"
    names = ("card_arrival", "exchange_rate", "top_up_failed")
    chosen = [q for name in names for q in [q for q in questions("train") if q.intent == name][:20]]
    file.write_text("".join(json.dumps({"text": q.text, "label": q.intent}) + "\n" for q in chosen))
    return file


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A model tuned in full on three intents."""
    from serving_stack.recipe import Recipe
    from serving_stack.tune import Tuning
    from serving_stack.tune_data import read

    folder = tmp_path_factory.mktemp("tuned")
    file = folder / "texts.csv"
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["text", "label"])
        for name in ("card_arrival", "exchange_rate", "top_up_failed"):
            rows.writerows([q for q in questions("train") if q.intent == name][:20])
    run = Tuning(folder, Recipe(method="full", epochs=2, batch=16, rate=1e-4), read(file))
    run.run(lambda _: None)
    return run.adapter(2)


@pytest.mark.integration
def test_a_student_of_two_layers_learns_and_is_served_like_any_model(tuned, texts, tmp_path):
    from serving_stack import network as net
    from serving_stack.compress_cli import distill
    from serving_stack.export import FLOAT, export_folder

    distill(str(tuned), tmp_path / "student", texts, layers=2, epochs=2, seed=7)
    student = tmp_path / "student" / "model"
    card = json.loads((student / "card.json").read_text())
    assert card["compress"] == {"method": "distill", "layers": 2}
    assert card["validation_accuracy"] > 0.5, "a third is chance"
    assert len(net.load_merged(student).body.encoder.layer) == 2
    teacher, small = (export_folder(folder, tmp_path / "cache") / FLOAT for folder in (tuned, student))
    assert small.stat().st_size < teacher.stat().st_size - 4 * 7_000_000, "four layers of 1.77 million weights fewer"
    with pytest.raises(TrimtabError, match="has 2 layers: a student has fewer"):
        distill(str(student), tmp_path / "again", texts, layers=2, epochs=1, seed=7)


@pytest.mark.integration
@pytest.mark.parametrize("epochs", [0, 1])
def test_a_pruned_model_has_its_zeros_and_answers(tuned, texts, tmp_path, epochs):
    from serving_stack import network as net
    from serving_stack.compress_cli import prune

    prune(str(tuned), tmp_path / "pruned", texts, sparsity=0.4, epochs=epochs, seed=7)
    network = net.load_merged(tmp_path / "pruned" / "model")
    assert compress.zeros(network) == pytest.approx(0.4, abs=0.01)
    card = json.loads((tmp_path / "pruned" / "model" / "card.json").read_text())
    assert card["compress"]["sparsity"] == pytest.approx(0.4, abs=0.01)
    assert card["validation_accuracy"] > 0.5, "a third is chance"


@pytest.mark.integration
def test_int8_says_what_it_costs(tuned, texts, tmp_path, monkeypatch):
    from serving_stack.compress_cli import int8
    from serving_stack.repository import publish

    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    int8(str(tuned), tmp_path / "int8", texts)
    card = json.loads((tmp_path / "int8" / "card.json").read_text())
    assert card["int8"]["bytes"] < card["float32"]["bytes"] / 3
    assert publish(tmp_path / "store", "intent", None, tmp_path / "int8", check=True).name == "1"


def test_what_is_no_tuned_model_is_refused(tmp_path):
    from serving_stack.compress_cli import find

    with pytest.raises(Missing, match="holds no adapter and no tuned network"):
        find(str(tmp_path))
    with pytest.raises(Missing, match="no adapter of that number"):
        find("77")
    assert find("2").name == "2"


@pytest.mark.integration
def test_a_prefix_is_no_network_of_its_own(texts, tmp_path):
    from serving_stack.compress_cli import prune
    from serving_stack.recipe import Recipe
    from serving_stack.tune import Tuning
    from serving_stack.tune_data import read

    run = Tuning(tmp_path / "prefix", Recipe(method="prefix", epochs=1, batch=32), read(texts))
    run.run(lambda _: None)
    with pytest.raises(TrimtabError, match="is a prefix"):
        prune(str(run.adapter(1)), tmp_path / "out", texts, sparsity=0.5, epochs=0, seed=7)
