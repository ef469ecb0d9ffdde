"""The figures of a grid: learning curves, before and after reflection, variance of rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from erl_trainer import plots
from erl_trainer.curves.results import Record, Results
from erl_trainer.curves.statistics import Curve, band, trailing_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINDOW = 5
"""Steps of a trailing mean. Evaluations are drawn as they are: few, and every seed beside them."""


class Axis(NamedTuple):
    """What learning curves are drawn against."""

    metric: str
    label: str
    scale: float


STEPS = Axis("step", "training step", 1)
TOKENS = Axis("tokens/sampled", "sampled tokens (thousands)", 1e3)
TIME = Axis("time/wall", "wall time (minutes)", 60)


def learning_curves(results: Results, against: Axis) -> Figure | None:
    """Validation reward of first attempts (the paper's Fig. 4); None if there is none."""

    def curve(record: Record) -> Curve:
        x, y = record.curve("eval/reward", against.metric)
        return Curve(x / against.scale, y)

    if not any(len(curve(record).x) for record in results.records):
        return None
    figure, [row] = plots.panels(len(results.environments))
    for axes, environment in zip(row, results.environments, strict=True):
        for method in results.main:
            _draw_runs(axes, results, environment, method, curve)
        _finish(axes, results, environment, against.label)
    row[0].set_ylabel("validation reward")
    plots.add_legend(figure)
    return figure


def before_and_after_reflection(results: Results) -> Figure | None:
    """Training reward of ERL before and after reflection against GRPO's (the paper's Fig. 6)."""
    erl, grpo = results.first("erl"), results.first("grpo")
    after = _smooth("train/post_reflection")
    if not erl or not any(len(after(record).x) for record in results.records):
        return None
    figure, [row] = plots.panels(len(results.environments))
    for axes, environment in zip(row, results.environments, strict=True):
        its = style_of(results, erl)
        _draw_mean(axes, results, environment, erl, after, its, f"{erl}, after reflection")
        its = its._replace(dash=(0, (4, 1.5)))
        before = _smooth("train/reward")
        _draw_mean(axes, results, environment, erl, before, its, f"{erl}, before reflection")
        if grpo:
            _draw_mean(axes, results, environment, grpo, before, style_of(results, grpo), grpo)
        _finish(axes, results, environment, STEPS.label)
    row[0].set_ylabel(f"training reward,\ntrailing mean of {WINDOW} steps")
    plots.add_legend(figure)
    return figure


def variance(results: Results) -> Figure | None:
    """Share of tasks whose rewards differ.

    Among first attempts, which are one group: what their policy gradient can learn from. Among all
    attempts, which no algorithm here compares with each other: what second attempts could add.
    """
    metrics = {
        "train/mixed_groups": "first attempts (a group)",
        "train/mixed_groups_2": "all attempts",
    }
    shown = {
        metric: label
        for metric, label in metrics.items()
        if any(metric in record.training for record in results.records)
    }
    if not shown:
        return None
    figure, rows = plots.panels(
        len(results.environments), len(shown), height=2.6, sharex="col", sharey=True
    )
    for row, (metric, label) in zip(rows, shown.items(), strict=True):
        for axes, environment in zip(row, results.environments, strict=True):
            for method in results.main:
                its = style_of(results, method)
                _draw_mean(axes, results, environment, method, _smooth(metric), its, method)
            axes.set_ylim(0, 1.02)
        row[0].set_ylabel(f"tasks with mixed rewards:\n{label}")
    for axes, environment in zip(rows[0], results.environments, strict=True):
        axes.set_title(environment)
    for axes in rows[-1]:
        axes.set_xlabel(f"{STEPS.label} (trailing mean of {WINDOW})")
    plots.add_legend(figure)
    return figure


def style_of(results: Results, method: str) -> plots.Style:
    """A method's style, the same in every figure."""
    return plots.style(list(results.methods).index(method))


def reference_lines(axes: Axes, results: Results, environment: str, vertical: bool = False) -> None:
    """The environment's reference values as dashed lines."""
    for name, value in results.references.get(environment, {}).items():
        plots.draw_reference(axes, value, name, vertical)


def _smooth(metric: str) -> Callable[[Record], Curve]:
    return lambda record: trailing_mean(record.curve(metric), WINDOW)


def _draw_runs(
    axes: Axes, results: Results, environment: str, method: str, curve: Callable[[Record], Curve]
) -> None:
    """Every run, faint, also unfinished ones; the mean of the finished ones."""
    its = style_of(results, method)
    for record in results.of(environment, method, finished=False):
        plots.draw_faint(axes, *curve(record), its)
    _draw_mean(axes, results, environment, method, curve, its, method)


def _draw_mean(
    axes: Axes,
    results: Results,
    environment: str,
    method: str,
    curve: Callable[[Record], Curve],
    its: plots.Style,
    label: str,
) -> None:
    curves: Sequence[Curve] = [curve(record) for record in results.of(environment, method)]
    curves = [points for points in curves if len(points.x)]
    if curves:
        plots.draw_band(axes, *band(curves), its, label)


def _finish(axes: Axes, results: Results, environment: str, label: str) -> None:
    """Title, label, references and limits."""
    axes.set_title(environment)
    axes.set_xlabel(label)
    reference_lines(axes, results, environment)
    plots.fit_height(axes)
    axes.set_xlim(left=0)
