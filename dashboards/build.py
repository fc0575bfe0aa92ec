"""From a board to Grafana's JSON: variables, links, annotations, and panels with stable ids."""

from __future__ import annotations

import hashlib
import json

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardCursorSync,
    DashboardLink,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from dashboards.boards import BOARDS
from dashboards.boards.kind import Board
from dashboards.panels import SOURCE
from dashboards.queries import QUERIES, VARIABLES

TAG = "trimtab"
"""Every dashboard of ours has it."""
Json = dict[str, object]


class _Mark(AnnotationQuery, Builder[AnnotationQuery]):
    """A Prometheus annotation: the SDK's model lacks what Grafana's Prometheus plugin reads besides the query."""

    def __init__(self, name: str, query: str, color: str, title: str, text: str, *, value_is_time: bool) -> None:
        super().__init__(name=name, datasource=SOURCE, icon_color=color, expr=QUERIES[query].expr)
        self._more: Json = {"titleFormat": title, "textFormat": text, "step": "10s", "useValueForTime": value_is_time}

    def to_json(self) -> Json:
        """Its own fields and those of the plugin."""
        return super().to_json() | self._more

    def build(self) -> AnnotationQuery:
        """Itself: the SDK wants builders."""
        return self


def dashboards() -> dict[str, Json]:
    """uid -> the JSON of every dashboard; the same input gives the same bytes."""
    return {board.uid: _build(board) for board in BOARDS}


def text(dashboard: Json) -> str:
    """As it is written to a file."""
    return json.dumps(dashboard, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def fingerprint(dashboard: Json) -> str:
    """A digest of everything but what Grafana itself sets: id and version."""
    content = {key: value for key, value in dashboard.items() if key not in ("id", "version")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _build(board: Board) -> Json:
    made = (
        builders.Dashboard(board.title)
        .uid(board.uid).tags([TAG]).description(board.about).time(board.span, "now").refresh("30s").timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR).editable()
        .variables([_source(), _fleet(board)])
        .annotations(_marks())
        .links(_links(board))
    )  # fmt: skip
    number = 0
    for title, panels in board.sections():
        number += 1
        made = made.with_row(builders.Row(title).id(number))
        for panel in panels:
            number += 1
            made = made.with_panel(panel.id(number))
    return as_json(made.build())


def as_json(dashboard: Dashboard) -> Json:
    """Through the SDK's own encoder."""
    encoded: Json = json.loads(json.dumps(dashboard, cls=JSONEncoder))
    return encoded


def _source() -> builders.DatasourceVariable:
    return builders.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _fleet(board: Board) -> builders.QueryVariable:
    variable = (
        builders.QueryVariable("fleet")
        .label("Fleet").datasource(SOURCE).query({"query": VARIABLES["fleet"], "refId": "fleet"})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
    )  # fmt: skip
    # Of several values Grafana escapes what a regular expression would take for more than a letter, of a single one it does not.
    variable = variable.multi(True)
    if board.one_fleet:
        return variable
    return variable.include_all(True).current(VariableOption(selected=True, text="All", value="$__all"))


def _marks() -> list[Builder[AnnotationQuery]]:
    return [
        _Mark("Decisions", "mark_decisions", "blue", "{{action}} {{outcome}}", "{{fleet}}", value_is_time=True),
        _Mark(
            "Findings", "mark_findings", "orange", "{{kind}}", "{{fleet}} {{subject}} version {{version}}", value_is_time=False
        ),
    ]


def _links(board: Board) -> list[Builder[DashboardLink]]:
    return [
        builders.DashboardLink(other.title.removeprefix("Trimtab / "))
        .type(DashboardLinkType.LINK).url(f"/d/{other.uid}").tooltip(other.about).keep_time(True).include_vars(True)
        for other in BOARDS
        if other is not board
    ]  # fmt: skip
