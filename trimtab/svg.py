"""What the pages with plots share: elements of HTML and SVG, and a time axis. Everything is escaped by ElementTree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree.ElementTree import Element

_STEPS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 43_200, 86_400)


def el(tag: str, *children: Element | str | None, **attributes: object) -> Element:
    """An element; ``class_="a"`` is `class`, ``stroke_width=2`` is `stroke-width`; an attribute that is None is left out."""
    element = Element(tag, {k.rstrip("_").replace("_", "-"): _text(v) for k, v in attributes.items() if v is not None})
    for child in children:
        if isinstance(child, Element):
            element.append(child)
        elif child is not None:
            if len(element):
                element[-1].tail = (element[-1].tail or "") + child
            else:
                element.text = (element.text or "") + child
    return element


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Axis:
    """A time axis: the times `start` to `end` (seconds) between the pixels `left` and `right`."""

    start: float
    end: float
    left: float
    right: float

    def x(self, time: float) -> float:
        """The pixel of a time, kept inside the plot."""
        share = (min(max(time, self.start), self.end) - self.start) / (self.end - self.start)
        return self.left + share * (self.right - self.left)

    def ticks(self) -> list[float]:
        """Round times to label, twelve at most."""
        whole = self.end - self.start
        step = next((s for s in _STEPS if whole / s <= 12), _STEPS[-1] * math.ceil(whole / _STEPS[-1] / 12))
        first = int(-(-self.start // step))
        return [float(k * step) for k in range(first, int(self.end // step) + 1)]
