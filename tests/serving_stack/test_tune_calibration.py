"""A confidence that means what it says."""

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from serving_stack.tune_calibration import cool, temperature  # noqa: E402


def answers(sureness: float, count: int = 4000):
    """Logits whose probabilities are true when they are divided by `sureness`, and labels drawn by these probabilities."""
    torch.manual_seed(3)
    true = torch.randn(count, 5) * 2
    labels = torch.distributions.Categorical(logits=true).sample()
    return true * sureness, labels


@pytest.mark.parametrize("sureness", [0.2, 1.0, 4.0])
def test_too_sure_and_too_shy_answers_are_mended(sureness):
    logits, labels = answers(sureness)
    found = temperature(logits, labels)
    assert found == pytest.approx(sureness, rel=0.08)
    confidence = torch.softmax(logits / found, 1).max(1).values.mean().item()
    right = (logits.argmax(1) == labels).float().mean().item()
    assert confidence == pytest.approx(right, abs=0.02)


def test_answers_that_are_all_right_do_not_run_away():
    assert temperature(torch.eye(4) * 9, torch.arange(4)) == pytest.approx(0.05, rel=1e-3)
    assert temperature(torch.eye(4).roll(1, 0) * 9, torch.arange(4)) == pytest.approx(20, rel=1e-3)
    assert temperature(torch.empty(0, 4), torch.empty(0, dtype=torch.long)) == 1.0


def test_a_cooled_head_gives_the_same_answers_less_surely():
    head = torch.nn.Linear(6, 3)
    rows = torch.randn(10, 6)
    before = head(rows).detach()
    cool(head, 2.5)
    torch.testing.assert_close(head(rows).detach(), before / 2.5)
