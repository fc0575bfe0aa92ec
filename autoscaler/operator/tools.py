"""What the loops of all fleets in one operator share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from autoscaler.actuators.kubernetes import KubernetesActuator
from autoscaler.actuators.kubernetes_cache import Cache
from autoscaler.operator.events import Herald
from autoscaler.operator.hub import Hub
from autoscaler.operator.settings import OperatorSettings
from autoscaler.settings import AutoscaleSettings
from trimtab.kube import Kube
from trimtab.messages import FleetState


class Tools(NamedTuple):
    """What all workers share."""

    kube: Kube
    cache: Cache
    actuator: KubernetesActuator
    hub: Hub
    herald: Herald
    settings: OperatorSettings
    base: AutoscaleSettings
    clock: Callable[[], float] = time.time


class Watched:
    """The actuator of one fleet that remembers what was observed, so that the status needs no second look."""

    def __init__(self, actuator: KubernetesActuator) -> None:
        self._actuator = actuator
        self.state: FleetState | None = None
        self.apply = actuator.apply

    def observe(self, fleet: str) -> FleetState:
        """See `Actuator`."""
        self.state = None
        self.state = self._actuator.observe(fleet)
        return self.state
