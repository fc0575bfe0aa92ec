"""What a ScaledObject's trigger says to the scaler."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping

import msgspec

from trimtab.errors import SettingsError
from trimtab.kube import fleet_name

_KEYS = ("fleet", "fleetNamespace", "capacityPerReplica", "targetUtilisationPercent", "activationRate")
_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")


class Trigger(msgspec.Struct, frozen=True):
    """`fleet` as in all messages. None: as the fleet's own spec and settings say."""

    fleet: str
    capacity_per_replica: float | None = None
    target_utilisation: float | None = None
    activation_rate: float = 0.0

    @property
    def metric(self) -> str:
        """The name of the metric."""
        return f"trimtab-{self.fleet.replace('_', '-')}"


def trigger(namespace: str, metadata: Mapping[str, str]) -> Trigger:
    """The trigger of a ScaledObject in `namespace`. Raises `SettingsError`, one sentence, for what is wrong or misspelt."""
    for key in metadata:
        near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.8)
        if key not in _KEYS and near:  # other keys are KEDA's own, such as scalerAddress
            raise SettingsError(f"the trigger's metadata has '{key}'; did you mean '{near[0]}'?")
    fleet, place = metadata.get("fleet", ""), metadata.get("fleetNamespace") or namespace
    for key, value in (("fleet", fleet), ("fleetNamespace", place)):
        if not _NAME.match(value):
            raise SettingsError(f"the trigger's metadata must name a ModelFleet: '{key}' is {value!r}")
    utilisation = _number(metadata, "targetUtilisationPercent", least=1, most=100)
    return Trigger(
        fleet=fleet_name(place, fleet),
        capacity_per_replica=_number(metadata, "capacityPerReplica", least=1e-3, most=1e9),
        target_utilisation=None if utilisation is None else utilisation / 100,
        activation_rate=_number(metadata, "activationRate", least=0, most=1e9) or 0.0,
    )


def _number(metadata: Mapping[str, str], key: str, *, least: float, most: float) -> float | None:
    text = metadata.get(key)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise SettingsError(f"the trigger's metadata has {key} {text!r}; it must be a number from {least:g} to {most:g}")
    return value
