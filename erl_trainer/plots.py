"""Drawing: panels, one colour a method, bands, legends that hide nothing, the same bytes each time.

Knows matplotlib, and nothing of runs; matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from erl_envs.extras import missing_extra
from erl_envs.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (
    *("#222222", "#d55e00", "#0072b2", "#009e73"),
    *("#cc79a7", "#e69f00", "#56b4e9", "#882255"),
)
"""Okabe and Ito's, which colour-blind people tell apart; Tol's wine for their yellow, which is
hard to see on white."""

_DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.5)), (0, (1, 1)))

STACK = ("#77aadd", "#ee8866", "#ffaabb", "#bbcc33", "#dddddd")
"""Tol's: parts of a whole, unlike any method's colour."""

GREY = "#767676"

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "erl",  # element ids would be random
    "figure.dpi": 150,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
}


class Style(NamedTuple):
    """How a method is drawn in every figure."""

    colour: str
    dash: Any


def style(index: int) -> Style:
    """The style of a method by its place: eight colours, then the same ones dashed, then dotted."""
    rounds, place = divmod(index, len(_COLOURS))
    return Style(_COLOURS[place], _DASHES[rounds % len(_DASHES)])


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Our settings, for as long as it lasts.

    Raises:
        ValueError: matplotlib is missing; the message says how to install it.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise missing_extra("figures", "train", error) from error
    with mpl.rc_context(), mpl.rc_context(_STYLE):
        yield


def panels(
    columns: int, rows: int = 1, width: float = 3.7, height: float = 2.9, **axes: Any
) -> tuple[Figure, list[list[Axes]]]:
    """A figure and its panels, row by row; sizes are one panel's, in inches."""
    from matplotlib.figure import Figure

    figure = Figure((width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **axes).tolist()


def draw_band(axes: Axes, x: Any, mean: Any, low: Any, high: Any, its: Style, label: str) -> None:
    """A mean and its interval; no band where the bounds are NaN."""
    axes.fill_between(x, low, high, color=its.colour, alpha=0.13, linewidth=0)
    axes.plot(x, mean, color=its.colour, linestyle=its.dash, linewidth=1.8, label=label)


def draw_faint(axes: Axes, x: Any, y: Any, its: Style) -> None:
    """One run behind the mean of all."""
    axes.plot(x, y, color=its.colour, linestyle=its.dash, linewidth=0.6, alpha=0.3)


def draw_reference(axes: Axes, value: float, name: str, vertical: bool = False) -> None:
    """A dashed line with its name at the end."""
    line: dict[str, Any] = {"color": GREY, "linestyle": (0, (5, 3)), "linewidth": 1, "zorder": 1.5}
    text: dict[str, Any] = {"color": GREY, "fontsize": 7.5, "xytext": (2, 0)}
    text |= {"textcoords": "offset points", "annotation_clip": False}
    if vertical:
        axes.axvline(value, **line)
        across, where = axes.get_xaxis_transform(), (value, 1.0)
        axes.annotate(name, where, xycoords=across, ha="center", va="bottom", **text)
    else:
        axes.axhline(value, **line)
        across, where = axes.get_yaxis_transform(), (1.0, value)
        axes.annotate(name, where, xycoords=across, ha="left", va="center", **text)


def fit_height(axes: Axes) -> None:
    """Limits from 0 on that show the lines well; a wide interval may be cut, as of two seeds."""
    highest = max((max(_heights(line), default=0.0) for line in axes.get_lines()), default=0.0)
    top = min(axes.get_ylim()[1], 1.35 * highest)
    if 0 < highest <= 1:
        top = min(top, 1.02)  # nothing is above, where 1 is the most there is
    axes.set_ylim(0, top or 1.0)


def add_legend(figure: Figure, entry: float = 2.1) -> None:
    """One legend under all panels, each label once; `entry` is one's width in inches."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        rows = math.ceil(len(found) * entry / figure.get_figwidth())
        columns = math.ceil(len(found) / rows)
        figure.legend(
            _by_row(list(found.values()), columns),
            _by_row(list(found), columns),
            loc="outside lower center",
            ncols=columns,
        )


def save(figure: Figure, path: Path) -> None:
    """Write it as PNG and SVG; the same figure gives the same bytes.

    Raises:
        WriteError: The disk refuses; what was there still is.
    """
    for kind, told in (("png", ("Software",)), ("svg", ("Date", "Creator"))):
        with replacing(path.with_suffix(f".{kind}")) as part:
            figure.savefig(part, format=kind, metadata=dict.fromkeys(told))


def _heights(line: Any) -> list[float]:
    return [float(y) for y in line.get_ydata() if not math.isnan(y)]


def _by_row(items: Sequence[Any], columns: int) -> list[Any]:
    """Reordered so that a legend, which fills its columns, reads along its rows."""
    return [item for column in range(columns) for item in items[column::columns]]
