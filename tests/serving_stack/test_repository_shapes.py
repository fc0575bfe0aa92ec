"""A version whose network or adapter does not fit what is served is refused in words."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from serving_stack.repository_shapes import check_contents
from trimtab.errors import Missing, TrimtabError

NAMES = ["model.onnx", "tokenizer.json", "intents.json"]


@pytest.fixture
def served(tmp_path, write_tiny):
    """Writes a model as it is served: `served(classes=4)`."""

    def write(**shape):
        folder = tmp_path / "served"
        folder.mkdir(exist_ok=True)
        write_tiny(folder, **shape)
        shutil.move(folder / "model.int8.onnx", folder / "model.onnx")
        return folder

    return write


def test_the_right_shape_is_taken(served):
    check_contents(served(), NAMES)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"classes": 4}, r"two texts give float32 \[2, 4\], not float32 \[2, 3\] as intents\.json says"),
        ({"tokens": 5}, r"wrong shape for tokenizer\.json"),
        ({"batch": 1}, r"its input ids is \[1, 'tokens'\], not \[texts, tokens\] of any number"),
        ({"name": "words"}, r"it takes mask tensor\(int64\), words tensor\(int64\), the backend feeds ids"),
    ],
)
def test_a_network_of_another_shape_is_refused(served, shape, words):
    with pytest.raises(TrimtabError, match=words):
        check_contents(served(**shape), NAMES)


def changed(folder, change):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(folder / "model.onnx")
    change(model)
    onnx.save(model, folder / "model.onnx")


def test_logits_are_no_probabilities(served):
    def no_softmax(model):
        model.graph.node[2].op_type = "Sigmoid"
        del model.graph.node[2].attribute[:]

    folder = served()
    changed(folder, no_softmax)
    with pytest.raises(TrimtabError, match="gives no probabilities"):
        check_contents(folder, NAMES)


def test_weights_that_are_no_numbers_are_refused(served):
    def broken(model):
        table = np.full((10, 3), np.nan, dtype=np.float32)
        model.graph.initializer[0].raw_data = table.tobytes()

    folder = served()
    changed(folder, broken)
    with pytest.raises(TrimtabError, match="gives no probabilities"):
        check_contents(folder, NAMES)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_network_is_refused(served, share):
    folder = served()
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(TrimtabError, match=r"model\.onnx"):
        check_contents(folder, NAMES)


def test_weights_that_lie_elsewhere_are_refused(served, tmp_path):
    """ONNX can name another file for its weights, also one outside of the version."""

    def elsewhere(model):
        table = model.graph.initializer[0]
        (tmp_path / "weights").write_bytes(table.raw_data)
        table.ClearField("raw_data")
        table.data_location = 1
        for key, value in (("location", "../weights"), ("offset", "0"), ("length", "120")):
            entry = table.external_data.add()
            entry.key, entry.value = key, value

    folder = served()
    import onnx

    model = onnx.load(folder / "model.onnx", load_external_data=False)
    elsewhere(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(TrimtabError, match=r"model\.onnx is no whole ONNX model: .*External data path escapes"):
        check_contents(folder, NAMES)


@pytest.mark.parametrize("names", ["{}", "[]", '["one", "one", "two"]', '["one", 2, "three"]', "nothing"])
def test_intents_that_are_no_list_of_names_are_refused(served, names):
    folder = served()
    (folder / "intents.json").write_text(names)
    with pytest.raises(TrimtabError, match=r"intents\.json"):
        check_contents(folder, NAMES)


@pytest.mark.parametrize("name", ["tokenizer.json", "intents.json"])
def test_a_network_without_what_it_needs_is_refused(served, name):
    folder = served()
    (folder / name).unlink()
    with pytest.raises(Missing, match=f"{name} is missing"):
        check_contents(folder, ["model.onnx"])


def adapter(folder, down=(4, 8), up=(6, 4), rank=4, classes=3, lora=True):
    folder.mkdir(exist_ok=True)
    pair = {"layer.lora_A.weight": np.ones(down, np.float16), "layer.lora_B.weight": np.ones(up, np.float16)} if lora else {}
    save_file(pair or {"other": np.ones(1, np.float16)}, folder / "adapter_model.safetensors")
    save_file({"weight": np.ones((classes, 6), np.float16)}, folder / "head.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank}))
    (folder / "intents.json").write_text('["one", "two", "three"]')
    return sorted(f.name for f in folder.iterdir())


def test_an_adapter_that_fits_together_is_taken(tmp_path):
    check_contents(tmp_path / "a", adapter(tmp_path / "a"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rank": 8}, "rank 8"),
        ({"up": (6, 5)}, r"the matrices of layer\.lora_A\.weight are \[4, 8\] and \[6, 5\]"),
        ({"down": (4,)}, "wrong shape"),
        ({"lora": False}, "no LoRA matrix"),
        ({"classes": 4}, r"4 classes, intents\.json names 3"),
    ],
)
def test_an_adapter_of_another_shape_is_refused(tmp_path, change, words):
    with pytest.raises(TrimtabError, match=words):
        check_contents(tmp_path / "a", adapter(tmp_path / "a", **change))


def test_the_shipped_adapters_are_taken():
    from serving_stack.export import ADAPTERS, shipped

    for number in shipped():
        folder = ADAPTERS / str(number)
        check_contents(folder, sorted(f.name for f in folder.iterdir() if f.is_file()))
