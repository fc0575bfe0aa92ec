"""What tuning makes small, against the formulas."""

import math

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from serving_stack.recipe import Recipe  # noqa: E402
from serving_stack.tune_loss import hidden, objective, twice  # noqa: E402

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
LABELS = torch.tensor([0, 2])


def log_softmax(row):
    total = math.log(sum(math.exp(x) for x in row))
    return [x - total for x in row]


def test_plain_cross_entropy():
    expected = -sum(log_softmax(row)[label] for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True)) / 2
    assert objective(LOGITS, LABELS, Recipe()).item() == pytest.approx(expected, rel=1e-5)


def test_agreement_is_the_divergence_in_both_directions():
    other = LOGITS + torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    both = torch.cat([LOGITS, other])
    p, q = log_softmax(LOGITS[0].tolist()), log_softmax(other[0].tolist())
    apart = sum((math.exp(a) - math.exp(b)) * (a - b) for a, b in zip(p, q, strict=True)) / 2  # the second pair agrees
    plain = objective(both, twice(LABELS), Recipe()).item()
    assert objective(both, twice(LABELS), Recipe(agreement=3.0)).item() == pytest.approx(plain + 3 * apart / 2, rel=1e-5)


def test_a_student_that_answers_like_its_teacher_only_has_the_labels_left():
    plain = objective(LOGITS, LABELS, Recipe()).item()
    assert objective(LOGITS, LABELS, Recipe(teaching=0.25), LOGITS).item() == pytest.approx(0.75 * plain, rel=1e-5)
    assert objective(LOGITS, LABELS, Recipe(teaching=1.0), LOGITS + 5).item() == pytest.approx(0.0, abs=1e-6)
    assert objective(LOGITS, LABELS, Recipe(teaching=1.0), LOGITS * 2).item() > 0.01


def test_only_words_are_hidden():
    torch.manual_seed(1)
    ids = torch.cat(
        [torch.full((50, 1), 101), torch.full((50, 20), 2000), torch.full((50, 1), 102), torch.zeros(50, 3, dtype=torch.long)], 1
    )
    seen = hidden(ids, 0.3)
    assert torch.equal(seen[:, 0], ids[:, 0])
    assert torch.equal(seen[:, 21:], ids[:, 21:])
    assert 0.25 < (seen == 103).sum().item() / 1000 < 0.35
    assert torch.equal(hidden(ids, 0.0), ids)
