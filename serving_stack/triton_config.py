"""What Triton is told about the models of a replica: the text of each `config.pbtxt`."""

from __future__ import annotations

from serving_stack.serving_settings import ServingSettings, instances

LONGEST_TEXT = 2000
"""Characters; more is refused (the model reads only the first 128 tokens anyway)."""
FEEDBACK = "_feedback"
"""What a model's name is followed by in the name of the one that takes its feedback."""
FEEDBACK_BATCH = 256

# No `default_queue_policy`: with one, this Triton's batcher misses the wake-up of a request that arrives while the only
# instance is busy, and lets it wait for half a second. The queue is bounded by the gateway's limits instead.
_INTENT = """\
name: "{model}"
backend: "python"
max_batch_size: {max_batch}
input [ {{ name: "text", data_type: TYPE_STRING, dims: [ 1 ] }} ]
output [
  {{ name: "label", data_type: TYPE_STRING, dims: [ 1 ] }},
  {{ name: "confidence", data_type: TYPE_FP32, dims: [ 1 ] }}
]
instance_group [ {{ kind: {kind}, count: {instances} }} ]
version_policy {{ specific {{ versions: [ {version} ] }} }}
{batching}parameters {{ key: "threads", value {{ string_value: "{threads}" }} }}
parameters {{ key: "longest_text", value {{ string_value: "{longest}" }} }}
parameters {{ key: "device", value {{ string_value: "{device}" }} }}
"""

_FEEDBACK = """\
name: "{model}"
backend: "python"
max_batch_size: {max_batch}
input [
  {{ name: "version", data_type: TYPE_INT64, dims: [ 1 ] }},
  {{ name: "answered", data_type: TYPE_STRING, dims: [ 1 ] }},
  {{ name: "right", data_type: TYPE_STRING, dims: [ 1 ] }}
]
output [
  {{ name: "labels", data_type: TYPE_INT64, dims: [ 1 ] }},
  {{ name: "accuracy", data_type: TYPE_FP32, dims: [ 1 ] }},
  {{ name: "low", data_type: TYPE_FP32, dims: [ 1 ] }},
  {{ name: "high", data_type: TYPE_FP32, dims: [ 1 ] }}
]
instance_group [ {{ kind: KIND_CPU, count: 1 }} ]
version_policy {{ specific {{ versions: [ {version} ] }} }}
parameters {{ key: "about", value {{ string_value: "{about}" }} }}
"""


def intent_config(model: str, version: int, settings: ServingSettings) -> str:
    """Of the model that answers."""
    batching = f"dynamic_batching {{\n  max_queue_delay_microseconds: {settings.queue_delay_microseconds}\n}}\n"
    return _INTENT.format(
        model=model,
        version=version,
        max_batch=settings.max_batch,
        kind="KIND_CPU" if settings.device == "cpu" else "KIND_GPU",
        instances=instances(settings),
        batching=batching if settings.batching else "",
        threads=settings.threads,
        longest=LONGEST_TEXT,
        device=settings.device,
    )


def feedback_config(model: str, version: int) -> str:
    """Of the model that takes feedback about `model`."""
    return _FEEDBACK.format(model=model + FEEDBACK, version=version, max_batch=FEEDBACK_BATCH, about=model)
