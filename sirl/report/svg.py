"""Just enough SVG: elements built as a tree (so every text is escaped), scales and axes.

Colours are classes of style.css, which knows light and dark; nothing here names a colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markupsafe import Markup

from sirl.report.words import visible


@dataclass(frozen=True)
class Scale:
    """Maps values in [low, high] linearly to pixels in [start, end]; values outside stick to the
    ends."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return self.start + (inside - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, about: int = 4) -> list[float]:
        """Round values inside the domain, about so many."""
        rough = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(index * step, 10) for index in range(first, last + 1)]


def figure(width: float, height: float, title: str, description: str) -> Element:
    """An empty drawing with its text alternative. Width and height are of the view box, CSS
    pixels."""
    svg = Element("svg", {"viewBox": f"0 0 {width:g} {height:g}", "role": "img"})
    add(svg, "title", title)
    add(svg, "desc", description)
    return svg


def add(parent: Element, tag: str, text: str = "", **attributes: str | float) -> Element:
    """Appends an element. `css` is its class; underscores in attribute names become hyphens."""
    names = {"css": "class"}
    element = ElementTree.SubElement(
        parent,
        tag,
        {names.get(k, k.replace("_", "-")): _plain(value) for k, value in attributes.items()},
    )
    element.text = visible(text) or None
    return element


def path(points: Sequence[tuple[float, float]]) -> str:
    """The `d` attribute of a line through points."""
    return "M" + "L".join(f"{_plain(x)} {_plain(y)}" for x, y in points)


def render(svg: Element) -> Markup:
    """The drawing as HTML-safe text."""
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


def x_axis(
    svg: Element, scale: Scale, y: float, name: str, form: Callable[[float], str], top: float
) -> None:
    """Ticks and name of a horizontal axis at `y`, with grid lines up to `top`."""
    for tick in scale.ticks():
        add(svg, "line", css="grid", x1=scale(tick), x2=scale(tick), y1=top, y2=y)
        add(svg, "text", form(tick), css="tick", x=scale(tick), y=y + 15, text_anchor="middle")
    middle = (scale.start + scale.end) / 2
    add(svg, "text", name, css="axis", x=middle, y=y + 31, text_anchor="middle")


def y_axis(
    svg: Element,
    scale: Scale,
    left: float,
    right: float,
    name: str,
    form: Callable[[float], str],
    name_y: float = 11,
) -> None:
    """Ticks of a vertical axis at `left`, with grid lines to `right`; its name lies at `name_y`."""
    for tick in scale.ticks():
        add(svg, "line", css="grid", x1=left, x2=right, y1=scale(tick), y2=scale(tick))
        add(svg, "text", form(tick), css="tick", x=left - 6, y=scale(tick) + 4, text_anchor="end")
    add(svg, "text", name, css="name", x=0, y=name_y)


def _plain(value: str | float) -> str:
    """Coordinates to a tenth of a pixel: equal on every machine, and small."""
    return value if isinstance(value, str) else f"{round(value, 1):g}"
