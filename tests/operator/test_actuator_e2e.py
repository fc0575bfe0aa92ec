"""The Kubernetes actuator: the actuators' contract on a real API server with real pods, and what only it does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from autoscaler.actuators.contract import ActuatorContract, Subject
from autoscaler.actuators.kubernetes import KubernetesActuator
from autoscaler.actuators.kubernetes_cache import Cache
from trimtab.kube import fleet_name

pytestmark = pytest.mark.e2e


class TestKubernetesActuator(ActuatorContract):
    @pytest.fixture
    def subject(
        self, actuator: KubernetesActuator, cache: Cache, namespace: str, make_fleet: Callable[..., Any]
    ) -> Iterator[Subject]:
        name = make_fleet(replicas={"min": 1, "max": 4})["metadata"]["name"]
        while cache.fleets.get(namespace, name) is None:
            time.sleep(0.02)
        yield Subject(actuator, fleet_name(namespace, name), time.sleep, patience=60.0)
