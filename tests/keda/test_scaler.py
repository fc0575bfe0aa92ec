"""KEDA's four questions, over a real channel."""

from __future__ import annotations

from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from typer.testing import CliRunner

from autoscaler.keda.cli import keda_scaler
from autoscaler.keda.service import ANSWERS


def test_replicas_for_the_demand_of_all_gateways(keda: Any) -> None:
    keda.spec()
    keda.serve(25, gw_a=50.0, gw_b=70.0)
    assert keda.replicas() == 4  # 120/s at 75 % of 40/s each
    assert keda.stub.IsActive(keda.ref()).result is True
    [spec] = keda.stub.GetMetricSpec(keda.ref()).metricSpecs
    assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == ("trimtab-prod-intent", 1, 1.0)


def test_the_fleets_bounds_hold_and_a_capacity_of_ones_own_has_none(keda: Any) -> None:
    keda.spec(max_replicas=3, min_replicas=2)
    keda.serve(25, gw_a=200.0)
    assert keda.replicas() == 3
    assert keda.replicas(capacityPerReplica="10", targetUtilisationPercent="100") == 20


def test_a_surge_shows_at_once_and_leaves_slowly(keda: Any) -> None:
    keda.spec()
    keda.serve(25, gw_a=30.0)
    assert keda.replicas() == 1
    keda.serve(3, gw_a=200.0)
    surged = keda.replicas()
    assert surged >= 5
    keda.serve(60, gw_a=30.0)
    assert keda.replicas() >= surged
    keda.serve(90, gw_a=30.0)
    assert keda.replicas() == 1


def test_no_requests_is_a_number_and_not_active(keda: Any) -> None:
    keda.spec()
    keda.serve(150, gw_a=0.0)
    assert keda.replicas() == 1 and keda.stub.IsActive(keda.ref()).result is False
    keda.serve(25, gw_a=5.0)
    keda.settle()
    assert keda.stub.IsActive(keda.ref()).result is True
    assert keda.stub.IsActive(keda.ref(activationRate="50")).result is False


def test_stale_data_is_an_error_and_never_a_number(keda: Any) -> None:
    keda.spec()
    keda.serve(25, gw_a=50.0)
    keda.now += 5.0
    for call in ("GetMetrics", "IsActive", "StreamIsActive"):
        code, words = keda.refusal(call)
        assert code == "UNAVAILABLE" and "gw-a was last seen alive 5.0 s ago" in words
    assert keda.stub.GetMetricSpec(keda.ref()).metricSpecs  # so that KEDA's fallback can count the errors of GetMetrics
    keda.serve(2, gw_a=50.0)
    assert keda.replicas() == 2


def test_no_data_at_all_is_an_error(keda: Any) -> None:
    keda.spec()
    assert keda.refusal() == ("UNAVAILABLE", "the demand of fleet 'prod_intent' is not known: no gateway was seen yet")
    keda.serve(1, gw_a=50.0)
    assert "gw-a was seen only once so far" in keda.refusal()[1]


def test_one_gateway_that_does_not_answer_makes_the_demand_unknown(keda: Any) -> None:
    keda.spec()
    keda.serve(25, gw_a=60.0, gw_b=60.0)
    for _ in range(5):
        keda.serve(1, gw_a=60.0)
        keda.page("gw-b", error="timed out: no whole answer within 0.8 s")
    code, words = keda.refusal()
    assert code == "UNAVAILABLE" and "gw-b was last seen alive 5.0 s ago (timed out" in words


def test_one_that_refuses_connections_or_is_gone_has_no_traffic(keda: Any) -> None:
    keda.spec()
    keda.serve(25, gw_a=60.0, gw_b=60.0)
    keda.serve(1, gw_a=120.0)
    keda.page("gw-b", error="cannot connect: All connection attempts failed")
    assert keda.replicas() >= 4
    keda.serve(140, gw_a=120.0)
    assert keda.replicas() == 4


def test_a_gateway_that_vanishes_is_waited_for_first(keda: Any) -> None:
    keda.spec()
    keda.serve(25, gw_a=60.0, gw_b=60.0)
    keda.serve(10, gw_a=60.0)
    assert "gw-b was last seen alive 10.0 s ago" in keda.refusal()[1]
    keda.serve(10, gw_a=60.0)
    assert keda.replicas() == 4  # the peak of the window: a lower demand must last to be believed


def test_a_frozen_page_is_stale(keda: Any) -> None:
    keda.spec()
    keda.serve(25, gw_a=60.0)
    still = keda.bus.topics["trimtab.telemetry"][-1][1]
    for _ in range(6):
        keda.now += 1.0
        keda.bus.append("trimtab.telemetry", still.replace(b'"time":1000025.0', f'"time":{keda.now}'.encode()))
    assert "its page is frozen" in keda.refusal()[1]


def test_a_restarted_gateway_gives_no_negative_and_no_zero(keda: Any) -> None:
    keda.spec()
    keda.serve(25, gw_a=60.0)
    keda.counters["gw-a"] = 0.0
    keda.serve(1, gw_a=3.0)
    assert keda.replicas() == 2


def test_a_snapshot_from_the_future_changes_nothing(keda: Any) -> None:
    keda.spec()
    keda.serve(25, gw_a=60.0)
    keda.now += 1000.0
    keda.page("gw-a", 1e9)
    keda.now -= 1000.0
    assert keda.replicas() == 2


def test_an_unknown_fleet_is_said_with_those_that_are_known(keda: Any) -> None:
    keda.spec()
    keda.serve(25, gw_a=60.0)
    assert keda.refusal(fleet="intend") == (
        "NOT_FOUND",
        "there is no fleet 'prod_intend' (no FleetSpec on trimtab.fleets); known fleets: prod_intent",
    )


@pytest.mark.parametrize("call", ["GetMetrics", "IsActive", "StreamIsActive", "GetMetricSpec"])
@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"fleet": ""}, "must name a ModelFleet: 'fleet' is ''"),
        ({"fleet": "a_b"}, "'fleet' is 'a_b'"),
        ({"fleetNamespace": "../x"}, "'fleetNamespace'"),
        ({"capacityPerReplica": "many"}, "capacityPerReplica 'many'; it must be a number"),
        ({"capacityPerReplica": "nan"}, "it must be a number"),
        ({"capacityPerReplica": "0"}, "from 0.001"),
        ({"targetUtilisationPercent": "0.75"}, "from 1 to 100"),
        ({"capacityPerReplicas": "3"}, "did you mean 'capacityPerReplica'?"),
    ],
)
def test_wrong_metadata_is_refused_in_words(keda: Any, call: str, metadata: dict[str, str], words: str) -> None:
    code, said = keda.refusal(call, **metadata)
    assert code == "INVALID_ARGUMENT" and words in said


def test_a_forgotten_fleet_is_an_unknown_one(keda: Any) -> None:
    keda.spec()
    keda.serve(30, gw_a=60)
    assert keda.replicas() > 0
    keda.forget()
    code, words = keda.refusal()
    assert code == "NOT_FOUND" and "known fleets: none" in words


def test_another_namespaces_fleet(keda: Any) -> None:
    keda.spec()
    keda.serve(25, gw_a=60.0)
    ref = keda.ref(fleetNamespace="prod")
    ref.namespace = "elsewhere"
    keda.settle()
    assert keda.stub.IsActive(ref).result is True


def test_the_stream_says_changes_once_and_ends_when_nothing_is_known(keda: Any) -> None:
    keda.spec()
    keda.serve(150, gw_a=0.0)
    keda.settle()
    stream = keda.stub.StreamIsActive(keda.ref(), timeout=30)
    assert next(stream).result is False
    keda.serve(3, gw_a=30.0)
    assert next(stream).result is True
    keda.now += 60.0
    with pytest.raises(Exception, match="was last seen alive 60.0 s ago"):
        next(stream)


def test_a_bus_that_goes_away_is_an_error_and_comes_back(keda: Any) -> None:
    keda.spec()
    keda.serve(25, gw_a=60.0)
    assert keda.replicas() == 2
    keda.bus.away = True
    keda.now += 10.0
    with pytest.raises(Exception, match="was last seen alive 10.0 s ago"):
        keda.stub.IsActive(keda.ref())
    keda.bus.away = False
    keda.serve(2, gw_a=60.0)
    assert keda.replicas() == 2


def test_answers_are_counted_with_their_code(keda: Any) -> None:
    def count(code: str) -> float:
        return float(ANSWERS.labels("GetMetrics", code)._value.get())

    good, bad = count("OK"), count("UNAVAILABLE")
    keda.spec()
    keda.refusal()
    keda.serve(25, gw_a=60.0)
    keda.replicas()
    assert (count("OK"), count("UNAVAILABLE")) == (good + 1, bad + 1)


def test_health_and_reflection(keda: Any) -> None:
    health = health_pb2_grpc.HealthStub(keda.channel)
    for name in ("", "externalscaler.ExternalScaler"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    [told] = reflection_pb2_grpc.ServerReflectionStub(keda.channel).ServerReflectionInfo(iter([asked]))
    assert "externalscaler.ExternalScaler" in [each.name for each in told.list_services_response.service]


def test_help_teaches_with_an_example() -> None:
    result = CliRunner().invoke(keda_scaler, ["--help"])
    assert result.exit_code == 0 and "Example: trimtab keda-scaler" in result.output
