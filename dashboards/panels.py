"""How a panel looks: the few kinds of panels that the dashboards are made of. What they ask is in `dashboards.queries`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.queries import QUERIES

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
"""The data source that the reader chose."""

MANY_POINTS = 200
"""Points of a series where there is one per replica: hundreds of them at 1000 points are no picture, and slow."""

Steps = Sequence[tuple[float | None, str]]
GOOD_AT_ZERO: Steps = ((None, "green"), (1, "red"))


def _targets(names: Sequence[str], *, as_table: bool = False) -> list[Any]:
    targets = []
    for index, name in enumerate(names):
        query = QUERIES[name]
        target = prometheus.Dataquery().expr(query.expr).ref_id(chr(ord("A") + index)).datasource(SOURCE)
        target = target.instant() if query.instant or as_table else target.range()
        if query.legend:
            target = target.legend_format(query.legend)
        if as_table:
            target = target.format(PromQueryFormat.TABLE)
        targets.append(target)
    return targets


def steps(values: Steps) -> board.ThresholdsConfig:
    """Colours from a value on; the first has none."""
    found = [Threshold(value=value, color=color) for value, color in values]
    return board.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(found)


def lines(
    title: str,
    about: str,
    unit: str,
    *names: str,
    span: int = 12,
    height: int = 8,
    limits: Steps | None = None,
    stacked: bool = False,
    least: float | None = 0,
    most: float | None = None,
    many: bool = False,
) -> timeseries.Panel:
    """Time series. `limits` draws lines at thresholds; unknown values are gaps, not zeros. `many`: a series per replica."""
    panel = (
        timeseries.Panel()
        .title(title).description(about).unit(unit).datasource(SOURCE).span(span).height(height)
        .targets(_targets(names))
        .line_width(1).fill_opacity(30 if stacked else 0).show_points(common.VisibilityMode.AUTO)
        .legend(
            common_builders.VizLegendOptions()
            .show_legend(True).display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)
        )
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
    )  # fmt: skip
    if many:
        panel = panel.max_data_points(MANY_POINTS)
    if least is not None:
        panel = panel.min(least)
    if most is not None:
        panel = panel.max(most)
    if stacked:
        panel = panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if limits:
        style = common_builders.GraphThresholdsStyleConfig().mode(common.GraphTresholdsStyleMode.DASHED)
        panel = panel.thresholds(steps(limits)).thresholds_style(style)
    return panel


def number(
    title: str, about: str, unit: str, name: str, *, span: int = 4, height: int = 4, colours: Steps = ((None, "blue"),)
) -> stat.Panel:
    """One number per series, coloured by its value, with its past behind it."""
    return (
        stat.Panel()
        .title(title).description(about).unit(unit).datasource(SOURCE).span(span).height(height)
        .targets(_targets([name])).thresholds(steps(colours)).no_value("unknown")
        .color_scheme(board.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common.BigValueGraphMode.AREA).color_mode(common.BigValueColorMode.VALUE)
    )  # fmt: skip


def rows(
    title: str,
    about: str,
    unit: str,
    *names: str,
    span: int = 12,
    height: int = 8,
    hide: Sequence[str] = (),
    colours: Steps | None = None,
) -> table.Panel:
    """A table of the newest values, a row per series; `hide` leaves out columns."""
    transformations = [DataTransformerConfig(id_val="merge", options={})] if len(names) > 1 else []
    excluded = dict.fromkeys(("Time", "__name__", "job", "instance", *hide), True)
    transformations.append(DataTransformerConfig(id_val="organize", options={"excludeByName": excluded}))
    panel = (
        table.Panel()
        .title(title).description(about).unit(unit).datasource(SOURCE).span(span).height(height)
        .targets(_targets(names, as_table=True)).transformations(transformations).no_value("none")
    )  # fmt: skip
    return panel.thresholds(steps(colours)) if colours else panel


def heat(title: str, about: str, unit: str, name: str, *, span: int = 12, height: int = 8) -> heatmap.Panel:
    """How values spread over many series: one cell per time and value, darker where there are more replicas."""
    return (
        heatmap.Panel()
        .title(title).description(about).unit(unit).datasource(SOURCE).span(span).height(height)
        .targets(_targets([name])).max_data_points(MANY_POINTS).calculate(True)
        .color(heatmap_color())
        .show_value(common.VisibilityMode.NEVER)
    )  # fmt: skip


def heatmap_color() -> heatmap.HeatmapColorOptions:
    """From light to dark orange."""
    return heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)


Panel = timeseries.Panel | stat.Panel | table.Panel | heatmap.Panel
Section = tuple[str, Sequence[Panel]]
Sections = Callable[[], Sequence[Section]]
