"""Rendering and writing the gateway's files, without Envoy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from serving_stack.gateway import Admission, GatewayPool, GatewayState, Token, gateway_process, render, write
from trimtab.errors import Missing, SettingsError, Unavailable

A, B, C = ("127.0.0.1", 8001), ("127.0.0.1", 8002), ("127.0.0.1", 8003)


def state(*pools: GatewayPool, fleet: str = "intent") -> GatewayState:
    return GatewayState(fleet=fleet, listen_port=8080, admin_port=9901, pools=pools)


def pool(version: int, role: Any, weight: int, *endpoints: tuple[str, int]) -> GatewayPool:
    return GatewayPool(version=version, role=role, weight=weight, endpoints=endpoints)


def routes(files: dict[str, Any]) -> list[dict[str, Any]]:
    return list(files["rds/route.json"]["resources"][0]["virtual_hosts"][0]["routes"])


def usual(files: dict[str, Any]) -> dict[str, Any]:
    """The route of an inference request without wishes."""
    return next(
        (each for each in routes(files) if "(infer|generate)" in each["match"].get("safe_regex", {}).get("regex", "")), {}
    )


def weights(files: dict[str, Any]) -> dict[str, int]:
    action = usual(files)
    return {c["name"]: c["weight"] for c in action["route"]["weighted_clusters"]["clusters"]} if "route" in action else {}


def chain(files: dict[str, Any], cluster: str) -> list[str]:
    found = next(c for c in files["cds/clusters.json"]["resources"] if c["name"] == cluster)
    return list(found["cluster_type"]["typed_config"]["clusters"])


def names(folder: Path) -> set[str]:
    return {c["name"] for c in json.loads((folder / "cds/clusters.json").read_text())["resources"]}


def test_who_answers_for_whom(tmp_path: Path) -> None:
    files = render(state(pool(1, "previous", 0, A), pool(2, "stable", 90, B), pool(3, "canary", 10, C)), tmp_path)
    assert weights(files) == {"intent_v2": 90, "intent_v3": 10}
    assert chain(files, "intent_v3") == ["intent_v3_replicas", "intent_v2_replicas", "intent_v1_replicas"]
    assert chain(files, "intent_v2") == ["intent_v2_replicas", "intent_v1_replicas"]  # never the canary


def test_the_pause_before_a_second_try_depends_on_whether_there_is_anybody_to_ask(tmp_path: Path) -> None:
    def pause(*pools: GatewayPool) -> str:
        (host,) = render(state(*pools), tmp_path)["rds/route.json"]["resources"][0]["virtual_hosts"]
        return str(host["retry_policy"]["per_try_timeout"])

    assert pause(pool(1, "stable", 100, A, B)) == "1.000s"
    assert pause(pool(2, "stable", 100, A), pool(1, "previous", 0, B)) == "1.000s"
    assert pause(pool(1, "stable", 100, A)) == "4.000s"
    assert pause(pool(1, "stable", 80, A), pool(2, "canary", 20, B)) == "4.000s"  # the canary does not answer for it


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 100), st.sets(st.integers(1, 65535), max_size=4)),
        max_size=4,
        unique_by=lambda item: item[0],
    )
)
def test_any_valid_state_renders_and_in_the_same_way(pools: list[tuple[int, int, set[int]]]) -> None:
    roles = ["stable", "canary", "previous", "canary"]
    made = tuple(
        GatewayPool(version=v, role=role, weight=w, endpoints=tuple(("127.0.0.1", p) for p in ports))  # type: ignore[arg-type]
        for role, (v, w, ports) in zip(roles, pools, strict=False)
    )
    files = render(state(*made), Path("/x"))
    assert json.loads(json.dumps(files)) == files == render(state(*made), Path("/x"))
    for one in made:
        endpoints = files[f"eds/v{one.version}.json"]["resources"][0]["endpoints"][0]["lb_endpoints"]
        # none only where another pool stands in
        assert endpoints or any(other.endpoints and other.role != "canary" for other in made)
    if any(one.weight for one in made):
        assert weights(files) == {f"intent_v{one.version}": one.weight for one in made if one.weight}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (state(fleet="A fleet"), "fleet name"),
        (state(fleet="a.b"), "fleet name"),
        (state(pool(1, "stable", 50), pool(1, "canary", 50)), "two pools"),
        (state(pool(1, "stable", 50), pool(2, "stable", 50)), "more than one stable"),
        (state(pool(1, "stable", 101)), "weight 101"),
        (state(pool(-1, "stable", 100)), "negative"),
        (state(pool(1, "stable", 100, ("127.0.0.1", 0))), "port 0 of 127.0.0.1"),
        (replace(state(), tokens=(Token("a"), Token("a"))), "each once"),
        (replace(state(), tokens=(Token("a b"),)), "without spaces"),
        (replace(state(), admission=Admission(least=9, most=8)), "admission needs"),
        (replace(state(), pools=(GatewayPool(version=1, role="canary", weight=0, mirror=101),)), "mirror 101"),
    ],
)
def test_a_wrong_state_is_refused_in_words(wrong: GatewayState, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        render(wrong, Path("/x"))


def test_writes_only_what_changed_and_the_bootstrap_once(tmp_path: Path) -> None:
    before = state(pool(1, "stable", 100, A), pool(2, "canary", 0, B))
    assert "bootstrap.json" in write(tmp_path, render(before, tmp_path))
    assert write(tmp_path, render(before, tmp_path)) == []
    assert write(tmp_path, render(state(pool(1, "stable", 90, A), pool(2, "canary", 10, B)), tmp_path)) == ["rds/route.json"]
    after = state(pool(1, "stable", 90, A), pool(2, "canary", 10, B, C))
    assert write(tmp_path, render(after, tmp_path)) == ["eds/v2.json"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_version_that_leaves_keeps_its_clusters_while_a_route_may_name_them(tmp_path: Path) -> None:
    write(tmp_path, render(state(pool(1, "stable", 100, A)), tmp_path))
    alone = render(state(pool(2, "stable", 100, B)), tmp_path)
    assert write(tmp_path, alone) == ["eds/v2.json", "cds/clusters.json", "rds/route.json"]  # the route comes last
    assert names(tmp_path) == {"intent_v1", "intent_v1_replicas", "intent_v2", "intent_v2_replicas"}
    assert write(tmp_path, alone) == ["cds/clusters.json"]
    assert names(tmp_path) == {"intent_v2", "intent_v2_replicas"}


def test_clusters_do_not_pile_up_when_every_state_changes_the_route(tmp_path: Path) -> None:
    for version in range(1, 20):
        write(tmp_path, render(state(pool(version, "stable", 100, A)), tmp_path))
        assert len(names(tmp_path)) <= 4


def test_each_kind_of_resource_has_a_directory_of_its_own(tmp_path: Path) -> None:
    """Envoy reads a file again at each event in its directory, so one kind's event must not make it read another's."""
    kinds = [
        {
            Path(name).parent
            for name in render(state(pool(1, "stable", 90, A), pool(2, "canary", 10, B)), tmp_path)
            if kind in name
        }
        for kind in ("eds/", "cds/", "rds/", "bootstrap")
    ]
    assert all(len(directories) == 1 for directories in kinds)
    assert len(set.union(*kinds)) == 4


def test_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"bootstrap\.json is not there"):
        gateway_process(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot write the gateway's files"):
        write(tmp_path / "file", render(state(), tmp_path))


def test_a_broken_file_in_place_is_replaced(tmp_path: Path) -> None:
    files = render(state(pool(1, "stable", 100, A)), tmp_path)
    write(tmp_path, files)
    (tmp_path / "cds/clusters.json").write_text("{broken")
    assert "cds/clusters.json" in write(tmp_path, files)
    assert names(tmp_path) == {"intent_v1", "intent_v1_replicas"}
