"""A trained set of detectors as files in a folder, without pickle.

``forest.npz`` (the trees as numbers), ``forecaster.onnx``, and ``facts.msgpack`` (scaler, calibrations, fleet, times). ``DIGEST``
holds the SHA-256 over all of them, which `load` checks. Loading needs neither scikit-learn nor torch (skops would import both,
which costs a worker seconds and memory).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from detectors.calibration import Calibration
from detectors.features import NAMES, Scaler
from detectors.members.isolation_forest import Trees
from trimtab.errors import Missing

FOREST, NETWORK, FACTS, DIGEST = "forest.npz", "forecaster.onnx", "facts.msgpack", "DIGEST"
FORMAT = 2


@dataclass(frozen=True)
class Models:
    """Everything that training learned about one fleet. Times are those of the first and last tick trained on."""

    fleet: str
    trained_from: float
    trained_to: float
    scaler: Scaler
    forest: Trees
    forest_calibration: Calibration
    network: bytes
    network_scale: list[float]
    network_calibration: Calibration


class _Facts(msgspec.Struct):
    format: int
    features: list[str]
    fleet: str
    trained_from: float
    trained_to: float
    scaler: Scaler
    forest_calibration: Calibration
    network_scale: list[float]
    network_calibration: Calibration


def save(models: Models, folder: Path) -> str:
    """Write `models` into `folder` (made if needed) and return the digest of its content.

    The digest file is written last: a folder that was left half written does not load.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DIGEST).unlink(missing_ok=True)
    facts = _Facts(
        FORMAT,
        NAMES,
        models.fleet,
        models.trained_from,
        models.trained_to,
        models.scaler,
        models.forest_calibration,
        models.network_scale,
        models.network_calibration,
    )
    for name, data in (
        (FOREST, models.forest.to_bytes()),
        (NETWORK, models.network),
        (FACTS, msgspec.msgpack.encode(facts)),
    ):
        _write(folder / name, data)
    digest = _digest(folder)
    _write(folder / DIGEST, digest.encode())
    return digest


def load(folder: Path) -> Models:
    """Read a folder that `save` wrote; raises `Missing` when files are absent, were changed, or are of another version."""
    try:
        said, found = (folder / DIGEST).read_text().strip(), _digest(folder)
    except OSError as error:
        raise Missing(f"no trained detectors in {folder} ({error.strerror}: {error.filename}); run `trimtab train`") from error
    if said != found:
        raise Missing(f"the trained detectors in {folder} were changed after they were written; run `trimtab train` again")
    try:
        facts = msgspec.msgpack.decode((folder / FACTS).read_bytes(), type=_Facts)
        if facts.format != FORMAT or facts.features != NAMES:
            raise Missing(f"the trained detectors in {folder} are of another version of Trimtab; run `trimtab train` again")
        forest = Trees.from_bytes((folder / FOREST).read_bytes())
    except (msgspec.DecodeError, ValueError) as error:
        raise Missing(f"the trained detectors in {folder} cannot be read ({error}); run `trimtab train` again") from error
    return Models(
        facts.fleet,
        facts.trained_from,
        facts.trained_to,
        facts.scaler,
        forest,
        facts.forest_calibration,
        (folder / NETWORK).read_bytes(),
        facts.network_scale,
        facts.network_calibration,
    )


def _write(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    Path(name).replace(path)


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for name in (FOREST, NETWORK, FACTS):
        data = (folder / name).read_bytes()
        total.update(f"{name} {len(data)}\n".encode())
        total.update(data)
    return total.hexdigest()
