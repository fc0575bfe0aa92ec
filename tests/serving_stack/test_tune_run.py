"""Tuning for real, on a few questions: it learns, resumes to the same weights, and its adapter exports to the same answers."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving_stack.export import FLOAT, TOKENIZER, export_folder
from serving_stack.recipe import Recipe
from trimtab.errors import Missing, TrimtabError

pytestmark = pytest.mark.integration


def tuning(folder, recipe, count=96):
    tune = pytest.importorskip("serving_stack.tune", reason="needs the extra `train`")
    made = tune.Tuning(folder, recipe)
    made.ids, made.labels = made.ids[:count], made.labels[:count]
    made.held = (made.held[0][:32], made.held[1][:32])
    return made


class Stopped(Exception):
    pass


def stop_in_epoch_two(progress):
    if progress.epoch == 2:
        raise Stopped


RECIPE = Recipe(epochs=2, batch=16, rate=3e-3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    made = tuning(tmp_path_factory.mktemp("whole"), RECIPE)
    made.run(lambda _: None)
    return made


def test_it_learns(whole):
    assert [row["epoch"] for row in whole.history] == [1, 2]
    assert whole.history[1]["loss"] < whole.history[0]["loss"]


def test_a_stopped_run_resumes_to_the_same_weights(whole, tmp_path):
    first = tuning(tmp_path, RECIPE)
    with pytest.raises(Stopped):
        first.run(stop_in_epoch_two)
    second = tuning(tmp_path, RECIPE)
    assert len(second.history) == 1
    second.run(lambda _: None)
    for name, weight in whole.trained.items():
        np.testing.assert_allclose(second.trained[name].detach().numpy(), weight.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_other_settings_do_not_resume(whole):
    with pytest.raises(TrimtabError, match="other settings or data"):
        tuning(whole.folder, Recipe(epochs=3))


def test_the_exported_model_answers_like_the_tuned_one(whole, tmp_path):
    import onnxruntime
    import torch

    from serving_stack.tune import padded

    exported = export_folder(whole.adapter(2), tmp_path)
    assert export_folder(whole.adapter(2), tmp_path) == exported, "made once"
    assert (exported / TOKENIZER).exists()
    assert [f.name for f in tmp_path.iterdir() if f.is_dir()] == [exported.name]
    session = onnxruntime.InferenceSession(exported / FLOAT)
    whole.network.eval()
    for rows in (whole.ids[:1], whole.ids[:16]):
        ids, mask = padded(rows)
        with torch.inference_mode():
            expected = torch.softmax(whole.network(ids, mask), 1).numpy()
        got = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})[0]
        np.testing.assert_allclose(got, expected, atol=5e-3)  # the adapter is kept in float16


def test_callers_at_the_same_time_export_once(whole, tmp_path):
    steps = []
    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(lambda _: export_folder(whole.adapter(1), tmp_path, steps.append), range(3)))
    assert len(folders) == 1
    assert len(steps) == len(set(steps)), "only one of them did the work"


def test_an_adapter_that_is_not_whole_is_refused(whole, tmp_path):
    broken = tmp_path / "adapter"
    broken.mkdir()
    (broken / "adapter_config.json").write_text(json.dumps({}))
    with pytest.raises(Missing, match="is missing"):
        export_folder(broken, tmp_path / "cache")
