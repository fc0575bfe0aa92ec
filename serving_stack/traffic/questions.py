"""The questions to send and their right answers: the test split of BANKING77, as requests in Triton's JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from importlib.resources import files

import msgspec
import numpy as np

from trimtab.errors import Missing


class Question(msgspec.Struct, frozen=True):
    """One request body (KServe v2 JSON, one text), the label that answers it, and the text."""

    body: bytes
    label: str
    text: str = ""


class _Output(msgspec.Struct, frozen=True):
    name: str
    data: list[str]


class _Answer(msgspec.Struct, frozen=True):
    model_version: str
    outputs: list[_Output]


_answers = msgspec.json.Decoder(_Answer)


def banking77(seed: int) -> list[Question]:
    """The 3,080 questions of the test split in a seeded order. Raises Missing when the package lacks its data."""
    try:
        text = (files("serving_stack") / "data" / "test.csv").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Missing("serving_stack/data/test.csv (BANKING77 test split) is not there: reinstall trimtab") from error
    rows = list(csv.DictReader(io.StringIO(text)))
    order = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
    return [question(rows[index]["text"], rows[index]["category"]) for index in order]


def question(text: str, label: str) -> Question:
    """The request that asks for the label of `text`."""
    return Question(infer_body(text), label, text)


def infer_body(text: str, adapter: str | None = None) -> bytes:
    """The request that asks for the label of `text`, of the model itself or of one of its adapters."""
    inputs = [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]
    parameters = {} if adapter is None else {"parameters": {"adapter": adapter}}
    return msgspec.json.encode({"inputs": inputs, "outputs": [{"name": "label"}], **parameters})


def feedback_body(version: str, answers: Sequence[tuple[str, str]]) -> bytes:
    """Tells what `version` answered and what would have been right, pair by pair."""
    shape = [len(answers), 1]
    inputs = [
        {"name": "version", "shape": shape, "datatype": "INT64", "data": [int(version)] * len(answers)},
        {"name": "answered", "shape": shape, "datatype": "BYTES", "data": [answered for answered, _ in answers]},
        {"name": "right", "shape": shape, "datatype": "BYTES", "data": [right for _, right in answers]},
    ]
    return msgspec.json.encode({"inputs": inputs})


def read_answer(body: bytes) -> tuple[str, str]:
    """The model version and the label in an answer. Raises ValueError when it is not such an answer."""
    answer = _answers.decode(body)
    for output in answer.outputs:
        if output.name == "label" and len(output.data) == 1 and is_version(answer.model_version):
            return answer.model_version, output.data[0]
    raise ValueError("no version, or no single label among the outputs")


def is_version(text: str) -> bool:
    """Whether this is a version of a model and nothing that a broken server made up: it becomes a label of metrics."""
    return text.isascii() and text.isdigit() and len(text) <= 10
