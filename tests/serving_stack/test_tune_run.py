"""Tuning for real, on a few questions: it learns, resumes to the same weights, and its result exports to the same answers."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import load_file

from serving_stack.banking import questions
from serving_stack.export import FLOAT, INTENTS, TOKENIZER, export_folder
from serving_stack.recipe import METHODS, RATES, Recipe
from serving_stack.tune_data import read
from trimtab.errors import Missing, TrimtabError

pytestmark = pytest.mark.integration
tune = pytest.importorskip("serving_stack.tune", reason="needs the extra `train`")

NAMES = ("card_arrival", "exchange_rate", "top_up_failed", "transfer_timing")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A hundred questions of four intents, as a person's own file."""
    file = tmp_path_factory.mktemp("data") / "texts.csv"
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["text", "label"])
        for name in NAMES:
            rows.writerows([q for q in questions("train") if q.intent == name][:25])
    return file


def recipe(method="lora", **changes):
    return Recipe(method=method, epochs=2, batch=16, rate=RATES[method], validation=0.2, **changes)


class Stopped(Exception):
    pass


def stop_in_epoch_two(progress):
    if progress.epoch == 2:
        raise Stopped


@pytest.fixture(scope="module")
def tuned(texts, tmp_path_factory):
    """A finished run by each method."""
    runs = {}
    for method in METHODS:
        runs[method] = tune.Tuning(tmp_path_factory.mktemp(method), recipe(method), read(texts))
        runs[method].run(lambda _: None)
    return runs


@pytest.mark.parametrize("method", METHODS)
def test_it_learns(tuned, method):
    history = tuned[method].history
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[1]["loss"] < history[0]["loss"]
    assert history[1]["validation"] > 0.5, "a quarter is chance"


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_resumes_to_the_same_weights(tuned, texts, tmp_path, method):
    first = tune.Tuning(tmp_path, recipe(method), read(texts))
    with pytest.raises(Stopped):
        first.run(stop_in_epoch_two)
    second = tune.Tuning(tmp_path, recipe(method), read(texts))
    assert len(second.history) == 1
    second.run(lambda _: None)
    for kind in ("trained", "mean"):
        ours, whole = getattr(second, kind), getattr(tuned[method], kind)
        for name, weight in whole.items():
            np.testing.assert_allclose(ours[name].detach().numpy(), weight.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_other_settings_or_data_do_not_resume(tuned, texts):
    with pytest.raises(TrimtabError, match="other settings or data"):
        tune.Tuning(tuned["lora"].folder, recipe(smoothing=0.1), read(texts))
    with pytest.raises(TrimtabError, match="other settings or data"):
        tune.Tuning(tuned["lora"].folder, recipe())


@pytest.mark.parametrize("method", METHODS)
def test_the_exported_model_answers_like_the_tuned_one(tuned, tmp_path, method):
    import onnxruntime
    import torch

    run = tuned[method]
    exported = export_folder(run.adapter(2), tmp_path)
    assert export_folder(run.adapter(2), tmp_path) == exported, "made once"
    assert (exported / TOKENIZER).exists()
    assert json.loads((exported / INTENTS).read_text()) == sorted(NAMES)
    assert [f.name for f in tmp_path.iterdir() if f.is_dir()] == [exported.name]
    session = onnxruntime.InferenceSession(exported / FLOAT)
    run._swap(run.mean)
    run.network.eval()
    for rows in (run.ids[:1], run.ids[:16], run.ids[:80]):
        ids, mask = tune.padded(rows)
        with torch.inference_mode():
            expected = torch.softmax(run.network(ids, mask) / run.history[1]["temperature"], 1).numpy()
        got = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})[0]
        np.testing.assert_allclose(got, expected, atol=5e-3)  # what was trained is kept in float16


def test_callers_at_the_same_time_export_once(tuned, tmp_path):
    steps = []
    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(lambda _: export_folder(tuned["lora"].adapter(1), tmp_path, steps.append), range(3)))
    assert len(folders) == 1
    assert len(steps) == len(set(steps)), "only one of them did the work"


def test_an_adapter_that_is_not_whole_is_refused(tmp_path):
    broken = tmp_path / "adapter"
    broken.mkdir()
    (broken / "adapter_config.json").write_text(json.dumps({}))
    with pytest.raises(Missing, match="is missing"):
        export_folder(broken, tmp_path / "cache")


def test_a_card_says_from_what_and_how_well(tuned, texts):
    from serving_stack.tune_card import cards

    run = tuned["lora"]
    (one, first), (two, second) = cards(run)
    assert (one, two) == (run.adapter(1), run.adapter(2))
    assert json.loads((two / "card.json").read_text()) == second
    assert second["data"]["sha256"] == read(texts).digest
    assert second["data"]["train"] + second["data"]["validation"] == 100
    low, high = second["validation_interval"]
    assert low <= second["validation_accuracy"] <= high
    assert 1_000_000 < second["bytes"] < 1_500_000
    assert first["version"] == 1


def test_a_teacher_is_part_of_the_run(tuned, texts, tmp_path):
    teacher = tuned["full"].adapter(2)
    student = tune.Tuning(tmp_path, recipe(), read(texts), (teacher,))
    student.run(lambda _: None)
    assert student.history[1]["loss"] < student.history[0]["loss"]
    with pytest.raises(TrimtabError, match="other settings or data"):
        tune.Tuning(tmp_path, recipe(), read(texts))
    with pytest.raises(TrimtabError, match="holds no tuned model"):
        tune.Tuning(tmp_path / "other", recipe(), read(texts), (tmp_path / "nothing",))


def started(command, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_resumes_to_the_result_of_one_that_was_not(texts, tmp_path, method):
    command = [sys.executable, "-m", "trimtab", "tune", "--method", method, "--data", str(texts), "--epochs", "3"]
    command += ["--batch", "16", "--validation", "0.2", "--out"]
    progress = tmp_path / "killed" / "state" / "progress.json"
    with started([*command, str(tmp_path / "killed")]) as process:
        while not progress.exists():
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed" / "adapters").exists(), "it was killed in time"
    for name in ("killed", "whole"):
        with started([*command, str(tmp_path / name)]) as process:
            said = process.communicate()[0]
        assert process.returncode == 0, said
        assert ("resuming after epoch" in said) == (name == "killed")
    files = sorted(file.name for file in (tmp_path / "whole/adapters/2").glob("*.safetensors"))
    assert len(files) == 2
    for name in files:
        ours, whole = (load_file(tmp_path / run / "adapters/2" / name) for run in ("killed", "whole"))
        assert ours.keys() == whole.keys()
        for key, value in whole.items():
            np.testing.assert_allclose(ours[key], value, rtol=2e-3, atol=1e-5)


SCRIPT = """
import sys
from pathlib import Path
from serving_stack.recipe import Recipe
from serving_stack.tune_cli import run
data, out = map(Path, sys.argv[1:])
run(out, Recipe(epochs=2, batch=15, dropout=0.0, precision="fp32", validation=0.2), data)
"""


def test_two_processes_learn_what_one_learns(texts, tmp_path):
    """Without dropout nothing but rounding may differ; the batches are odd, so that the shares are not alike."""
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    launcher = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
    ]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    for name, start in (("one", [sys.executable]), ("two", launcher)):
        with started([*start, str(script), str(texts), str(tmp_path / name)]) as process:
            said = process.communicate()[0]
        assert process.returncode == 0, said
        card = json.loads((tmp_path / name / "adapters/2/card.json").read_text())
        assert card["processor"]["processes"] == (2 if name == "two" else 1), said
    ours, whole = (load_file(tmp_path / run / "state/epoch-02.safetensors") for run in ("two", "one"))
    weights = [key for key in whole if key.startswith("weight.")]
    assert len(weights) > 70
    for key in weights:
        np.testing.assert_allclose(ours[key], whole[key], rtol=1e-2, atol=2e-5, err_msg=key)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("file", ["head.safetensors", "weights", "config"])
def test_a_tuned_folder_that_does_not_fit_together_is_refused_in_words(tuned, tmp_path, method, file):
    import shutil

    from safetensors.numpy import save_file

    from serving_stack import network

    folder = tmp_path / "tuned"
    shutil.copytree(tuned[method].adapter(2), folder)
    whole = method == "full"
    if file == "config":
        (folder / ("config.json" if whole else "adapter_config.json")).write_text('{"r": "many"}')
    else:
        name = {"weights": "model.safetensors" if whole else "adapter_model.safetensors"}.get(file, file)
        weights = load_file(folder / name)
        save_file({key: value[..., : value.shape[-1] // 2] for key, value in weights.items()}, folder / name)
    with pytest.raises(TrimtabError, match="holds no model that fits together"):
        network.load_merged(folder)
