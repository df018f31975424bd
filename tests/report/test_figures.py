from __future__ import annotations

from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from sirl.report import figures
from sirl.report.figures import Chart, Flag, Line, Mark, MarkRow
from sirl.report.svg import Scale


def parsed(drawing: Markup | None) -> ElementTree.Element:
    assert drawing is not None
    return ElementTree.fromstring(drawing)


def of_class(svg: ElementTree.Element, css: str) -> list[ElementTree.Element]:
    return [e for e in svg.iter() if set(css.split()) <= set((e.get("class") or "").split())]


def row(label: str, base: float | None, trained: float | None) -> MarkRow:
    return MarkRow(label, (Mark("base", base, 0.25, 0.75), Mark("trained", trained, None, None)))


def test_scale_maps_sticks_and_ticks() -> None:
    scale = Scale(0, 2, 100, 300)
    assert [scale(v) for v in (0, 0.5, 2, 9, -1)] == [100, 150, 300, 300, 100]
    assert scale.ticks() == [0, 0.5, 1, 1.5, 2]
    assert Scale(0, 1, 0, 1).ticks() == [0, 0.5, 1]
    assert Scale(3, 47, 0, 1).ticks() == [20, 40]


def test_dots_and_bars_lie_where_their_values_are() -> None:
    svg = parsed(figures.intervals("DSR", "safe", [row("direct", 0.5, 1.0)], labelled=False))
    base, trained = of_class(svg, "dot base")[0], of_class(svg, "dot trained")[0]
    left, right = 12, figures.WIDTH - 18
    assert float(base.get("cx", "")) == (left + right) / 2
    assert float(trained.get("cx", "")) == right
    bar = of_class(svg, "bar base")[0]
    width = right - left
    assert float(bar.get("x1", "")) == pytest.approx(left + width / 4, abs=0.06)
    assert float(bar.get("x2", "")) == pytest.approx(left + 3 * width / 4, abs=0.06)
    assert not of_class(svg, "bar trained")


def test_an_unmeasured_mark_is_said_in_words() -> None:
    svg = parsed(figures.intervals("DSR", "safe", [row("direct", None, 0.5)]))
    assert not of_class(svg, "dot base")
    assert "not measured" in [text.text for text in svg.iter("text")]
    assert "base not measured" in (svg.findtext("desc") or "")


def test_the_text_alternative_holds_the_numbers() -> None:
    svg = parsed(figures.intervals("DSR by attack", "safe", [row("direct", 0.5, 1.0)]))
    assert svg.findtext("title") == "DSR by attack"
    said = (svg.findtext("desc") or "").replace("\u00a0", " ")
    assert said == "direct: base 50 % (25\N{EN DASH}75 %), trained 100 % (not measured)"


def test_hostile_labels_are_text() -> None:
    drawing = figures.intervals("t", "a", [row("<script>\x00\ud800</svg>", 0.5, 0.5)])
    svg = parsed(drawing)
    assert "<script>␀\ufffd</svg>" in [text.text for text in svg.iter("text")]


def test_lines_start_end_and_flag_where_they_should() -> None:
    line = Line("kl", "first", tuple((float(step), step / 10) for step in range(1, 11)))
    flags = (Flag(10, "stopped: kl", "alarm"),)
    svg = parsed(figures.lines(Chart("KL", "step", "KL", (line,), flags=flags, top=1.0)))
    right = figures.WIDTH - 94
    flag = of_class(svg, "flag alarm")[0]
    assert float(flag.get("x1", "")) == right
    path = of_class(svg, "line first")[0].get("d", "")
    assert path.startswith("M46 ")
    assert path.endswith(f"L{right} 40")  # the value 1.0, at the top of the plot
    assert "▲ stopped: kl" in [text.text for text in svg.iter("text")]


def test_lines_without_points_are_no_figure() -> None:
    assert figures.lines(Chart("t", "x", "y", (Line("a", "first", ()),))) is None


@pytest.mark.parametrize("points", [((1.0, 0.0),), ((1.0, 0.0), (2.0, 0.0)), ((7.0, 3.0),)])
def test_flat_and_single_points_draw(points: tuple[tuple[float, float], ...]) -> None:
    svg = parsed(figures.lines(Chart("t", "x", "y", (Line("a", "first", points),))))
    assert "nan" not in ElementTree.tostring(svg, encoding="unicode")
    assert len(of_class(svg, "point first")) == len(points)


def test_long_lines_are_thinned_and_keep_their_end() -> None:
    points = tuple((float(i), float(i % 7)) for i in range(10_001))
    svg = parsed(figures.lines(Chart("t", "x", "y", (Line("a", "first", points),))))
    path = of_class(svg, "line first")[0].get("d", "")
    assert 300 < path.count("L") <= figures.MAX_POINTS
    assert path.split("L")[-1].startswith(f"{figures.WIDTH - 94} ")


def test_end_labels_keep_apart() -> None:
    chart = Chart(
        "t", "x", "y",
        (Line("a", "first", ((0, 0.5), (9, 0.5))), Line("b", "second", ((0, 0.5), (9, 0.51)))),
    )  # fmt: skip
    svg = parsed(figures.lines(chart))
    heights = [float(text.get("y", "")) for text in of_class(svg, "end strong")]
    assert abs(heights[0] - heights[1]) > 29.9


def test_histogram_counts_by_hand() -> None:
    top = float(figures.BINS)  # bins of width 1
    bins = figures._histogram([0.0, 0.5, 1.0, top], top)
    assert bins[:2] == [0.5, 0.25]
    assert bins[-1] == 0.25
    assert sum(bins) == 1


def test_distribution_of_one_group_and_of_none() -> None:
    svg = parsed(figures.distribution("t", [0.2, 0.4], [], 1.0))
    assert (svg.findtext("desc") or "").replace("\u00a0", " ") == "2 refusals, mean 0.30 nats"
    assert not of_class(svg, "area compliance")
    assert figures.distribution("t", [], [], 1.0) is None


def test_shares_have_their_lengths() -> None:
    svg = parsed(figures.shares("t", [("base", [0.5, 0.25])]))
    whole = float(of_class(svg, "rest")[0].get("width", ""))
    widths = [float(rect.get("width", "")) / whole for rect in of_class(svg, "share")]
    assert widths == pytest.approx([0.5, 0.25])
