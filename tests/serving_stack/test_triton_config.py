"""What Triton is told, and how a replica uses the cores that it has."""

import os

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from serving_stack.intent_feedback.judged import Judged, checked
from serving_stack.intent_model.network import CPU, GPUS, device
from serving_stack.serving_settings import ServingSettings, instances, usable_cores
from serving_stack.triton_config import feedback_config, intent_config


def parsed(text):
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_usual_configuration():
    config = parsed(intent_config("intent", 3, ServingSettings()))
    assert (config.name, config.max_batch_size, list(config.version_policy.specific.versions)) == ("intent", 32, [3])
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert not config.dynamic_batching.HasField("default_queue_policy"), "this Triton then misses wake-ups"
    assert (config.instance_group[0].count, config.instance_group[0].kind) == (1, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    assert config.parameters["threads"].string_value == "1"


def test_without_batching_there_is_no_batcher():
    config = parsed(intent_config("intent", 3, ServingSettings(batching=False)))
    assert not config.HasField("dynamic_batching")
    assert config.max_batch_size == 32


def test_on_a_gpu():
    config = parsed(intent_config("intent", 3, ServingSettings(device="tensorrt", instances=0)))
    assert (config.instance_group[0].count, config.instance_group[0].kind) == (1, model_config_pb2.ModelInstanceGroup.KIND_GPU)
    assert config.parameters["device"].string_value == "tensorrt"


def test_the_feedback_s_configuration():
    config = parsed(feedback_config("intent", 3))
    assert (config.name, [i.name for i in config.input]) == ("intent_feedback", ["version", "answered", "right"])
    assert config.parameters["about"].string_value == "intent"


@pytest.mark.parametrize(("cores", "threads", "count"), [(1, 1, 1), (2, 1, 2), (3, 2, 1), (1, 4, 1), (64, 1, 8)])
def test_an_instance_for_each_core(monkeypatch, cores, threads, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr("serving_stack.serving_settings.usable_cores", lambda: float(cores))
    assert instances(ServingSettings(instances=0, threads=threads)) == count
    assert instances(ServingSettings(instances=3, threads=threads)) == 3


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 1.5), ("max 100000", 4.0), ("800000 100000", 4.0), ("", 4.0)])
def test_a_container_s_quota_counts(monkeypatch, tmp_path, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cores(tmp_path / "cpu.max") == cores
    assert usable_cores(tmp_path / "missing") == 4.0


def test_a_gpu_replica_never_runs_on_the_processor_in_silence():
    assert device("cuda", "CPU", []) is CPU
    assert device("tensorrt", "GPU", ["TensorrtExecutionProvider", "CPUExecutionProvider"]) is GPUS["tensorrt"]
    with pytest.raises(RuntimeError, match=r"no cuda: install onnxruntime-gpu \(it has CPUExecutionProvider\)"):
        device("cuda", "GPU", ["CPUExecutionProvider"])
    with pytest.raises(RuntimeError, match="'abacus' is no device"):
        device("abacus", "GPU", ["CPUExecutionProvider"])


def test_the_interval_of_the_feedback_is_wilson_s():
    from serving_stack.intervals import wilson

    judged = Judged()
    assert judged.interval() == (0.0, 1.0)
    assert judged.accuracy != judged.accuracy
    for right, labels in ((9, 10), (0, 3), (80, 87)):
        judged.add(right, labels)
        assert judged.interval() == pytest.approx(wilson(judged.right, judged.labels), abs=1e-4)


def test_feedback_is_about_this_version_and_its_labels():
    assert checked([2, 2], [b"a", b"a"], [b"a", b"b"], 2, {"a", "b"}) == [True, False]
    with pytest.raises(ValueError, match="about version 3 came to a replica of version 2"):
        checked([2, 3], [b"a", b"a"], [b"a", b"b"], 2, {"a", "b"})
    with pytest.raises(ValueError, match="'c' is no label of version 2"):
        checked([2], [b"a"], [b"c"], 2, {"a", "b"})
    with pytest.raises(ValueError, match="is no label"):
        checked([2], [b"\xff"], [b"a"], 2, {"a", "b"})
