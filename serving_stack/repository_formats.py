"""Which files a version may hold: weights and text that nothing executes when they are read, and the backend's own Python.

Told by content, not only by name: a pickle called `weights.safetensors` is refused as a pickle.
"""

from __future__ import annotations

import io
import json
import pickletools
from pathlib import Path

from trimtab.errors import Missing, TrimtabError

CODE = Path(__file__).parent / "intent_model"
"""The Python-backend model of a version with one network."""
EDGE_CODE = Path(__file__).parent / "edge_model"
"""The Python-backend model of an adapter set. The files of both are the only Python that is published."""

ACCEPTED = (".safetensors", ".onnx", ".json", ".txt", ".md", ".py")

_REFUSED = (
    (b"PK\x03\x04", "a zip archive (what torch.save writes, with a pickle inside)"),
    (b"\x93NUMPY", "a numpy file, which can hold pickles"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\x7fELF", "a program"),
    (b"#!", "a script"),
    (b"\x89HDF\r\n", "an HDF5 file (a Keras model can hold code)"),
)
_TEXT = (".json", ".txt", ".md", ".py")
_LONGEST_TEXT = 64 << 20


def refuse_unsafe(file: Path) -> None:
    """Raise `TrimtabError` for a kind of file that no version may hold, or whose content can run code when it is read."""
    if file.suffix not in ACCEPTED:
        raise TrimtabError(f"{file.name} is not accepted: a version holds {', '.join(ACCEPTED)} files only")
    with file.open("rb") as content:
        start = content.read(1024)
    for mark, what in _REFUSED:
        if start.startswith(mark):
            raise TrimtabError(f"{file.name} is not accepted: it is {what}, whatever its name says")
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise TrimtabError(f"{file.name} is not accepted: it is a pickle, which runs code when it is read")
    if file.suffix in _TEXT and is_text_pickle(file):
        raise TrimtabError(f"{file.name} is not accepted: it is a pickle in text form, which runs code when it is read")


def refuse_foreign_code(file: Path) -> None:
    """Raise `TrimtabError` for Python that is not the backend's as this installation has it: who adds a version adds no code."""
    if file.suffix == ".py" and all(
        file.read_bytes() != own.read_bytes() for code in (CODE, EDGE_CODE) for own in code.glob("*.py")
    ):
        raise TrimtabError(f"{file.name} is not accepted: the only Python in a version is that of the backend, unchanged")


def is_text_pickle(file: Path) -> bool:
    """Whether a text is also a whole pickle of protocol 0 that would import or call something."""
    if file.stat().st_size > _LONGEST_TEXT:
        raise TrimtabError(f"{file.name} is not accepted: a text of more than {_LONGEST_TEXT >> 20} MiB is none")
    names: set[str] = set()
    try:
        for operation, _, _ in pickletools.genops(io.BytesIO(file.read_bytes())):
            names.add(operation.name)
    except Exception:  # genops raises ValueError and more: most text is no pickle
        return False
    return bool(names & {"GLOBAL", "INST", "OBJ", "REDUCE", "BUILD", "STACK_GLOBAL", "NEWOBJ", "NEWOBJ_EX"})


def check_format(file: Path) -> None:
    """Raise `TrimtabError` when a file is not whole or not what its name says; `repository_shapes` checks ONNX."""
    if file.suffix == ".safetensors":
        tensors(file)
    elif file.suffix in _TEXT:
        try:
            text = file.read_bytes().decode("utf-8")
            if "\0" in text:
                raise ValueError("it holds zero bytes")
            if file.suffix == ".json":
                json.loads(text)
        except ValueError as error:  # bad UTF-8 and bad JSON are ValueErrors
            raise TrimtabError(f"{file.name} is not {'JSON' if file.suffix == '.json' else 'text'}: {error}") from None
        except RecursionError:
            raise TrimtabError(f"{file.name} is not JSON that can be read: it is nested too deeply") from None


def tensors(file: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors in a safetensors file. Raises `TrimtabError` when it is truncated or malformed."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise Missing(f"safetensors files are read with the extra `serve`: pip install 'trimtab[serve]' ({error})") from error
    try:
        with safe_open(file, framework="numpy") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise TrimtabError(f"{file.name} is no whole safetensors file: {error}") from error
