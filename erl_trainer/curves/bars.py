"""The figures of a grid that compare methods: final reward, ablations, time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from erl_trainer import plots
from erl_trainer.curves.figures import reference_lines, style_of
from erl_trainer.curves.results import STAGES, Results
from erl_trainer.curves.statistics import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABEL = "validation reward after the last step"


def final_rewards(results: Results, environment: str, method: str) -> list[float]:
    """Final reward of every finished run."""
    rewards = [record.final for record in results.of(environment, method)]
    return [reward for reward in rewards if not math.isnan(reward)]


def final(results: Results) -> Figure | None:
    """Final reward with intervals, every seed a dot (the paper's Fig. 5)."""
    if not any(final_rewards(results, e, m) for e in results.environments for m in results.main):
        return None
    width = 0.9 + 0.36 * len(results.main)
    figure, [row] = plots.panels(len(results.environments), width=width, height=3.1)
    for axes, environment in zip(row, results.environments, strict=True):
        rewards = {m: final_rewards(results, environment, m) for m in results.main}
        names = [method for method, values in rewards.items() if values]
        for place, method in enumerate(names):
            its = style_of(results, method)
            mean, half = estimate(rewards[method])
            axes.bar(place, mean, 0.72, color=its.colour, alpha=0.35, label=method)
            axes.errorbar(place, mean, half, color=its.colour, capsize=3, linewidth=1.5)
            beside = [place + offset for offset in _spread(len(rewards[method]), 0.4)]
            axes.scatter(beside, rewards[method], 7, its.colour, alpha=0.7, linewidths=0, zorder=3)
        axes.set_title(environment)
        axes.set_xticks([])
        axes.grid(axis="x", visible=False)
        axes.set_ylim(bottom=0)
        reference_lines(axes, results, environment)
    row[0].set_ylabel(_LABEL)
    plots.add_legend(figure)
    return figure


def ablations(results: Results) -> Figure | None:
    """Final reward of every method, the best on top (the paper's Fig. 7); hollow of one seed."""
    by_panel = {
        environment: {
            method: estimate(rewards)
            for method in results.methods
            if (rewards := final_rewards(results, environment, method))
        }
        for environment in results.environments
    }
    most = max(map(len, by_panel.values()), default=0)
    if not most:
        return None
    figure, [row] = plots.panels(len(by_panel), width=4.8, height=0.9 + 0.3 * most)
    for axes, (environment, estimates) in zip(row, by_panel.items(), strict=True):
        names = sorted(estimates, key=lambda name: estimates[name].mean)
        for place, method in enumerate(names):
            known = method in results.main  # by its colour in the other figures
            colour = style_of(results, method).colour if known else plots.GREY
            _draw_row(axes, place, estimates[method], colour)
            rewards = final_rewards(results, environment, method)
            axes.scatter(rewards, [place - 0.22] * len(rewards), 5, plots.GREY, linewidths=0)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, most - 0.4)
        axes.set_title(environment, pad=14 if results.references else None)
        axes.set_xlim(left=0)
        axes.grid(axis="y", visible=False)
        reference_lines(axes, results, environment, vertical=True)
    figure.supxlabel(f"{_LABEL}, 95 % interval over seeds; hollow: one seed", fontsize=9)
    return figure


def time_split(results: Results) -> Figure | None:
    """Share of each stage in a run's time."""
    by_panel = {
        environment: {
            method: shares
            for method in results.methods
            if (shares := _shares([r.totals for r in results.of(environment, method)]))
        }
        for environment in results.environments
    }
    names = [
        m for m in reversed(list(results.methods)) if any(m in its for its in by_panel.values())
    ]
    if not names:
        return None
    height = 1.1 + 0.3 * len(names)
    figure, [row] = plots.panels(len(by_panel), width=3.7, height=height, sharey=True)
    for axes, (environment, methods) in zip(row, by_panel.items(), strict=True):
        for method, shares in methods.items():
            place = names.index(method)
            start = 0.0
            for stage, share, colour in zip(STAGES, shares, plots.STACK, strict=True):
                label = stage.replace("_", " ")
                axes.barh(place, share, 0.8, start, color=colour, label=label)
                if share >= 0.06:  # a number needs room
                    middle = start + share / 2
                    text = f"{100 * share:.0f}"
                    axes.text(middle, place, text, ha="center", va="center", fontsize=7.5)
                start += share
        axes.set_yticks(range(len(names)), names)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
        axes.set_xlim(0, 1)
        axes.set_title(environment)
        axes.set_xlabel("share of time (%)")
        axes.grid(visible=False)
    plots.add_legend(figure, entry=1.5)
    return figure


def _draw_row(axes: Axes, place: int, its: Estimate, colour: str) -> None:
    single = math.isnan(its.half)
    inside = "white" if single else colour
    axes.errorbar(its.mean, place, xerr=its.half, color=colour, marker="o", mfc=inside, capsize=3)
    text = f"{its.mean:.3f}" + ("" if single else f" ± {its.half:.3f}")
    axes.annotate(
        text,
        (1, place),
        xytext=(8, 0),
        xycoords=axes.get_yaxis_transform(),  # at the edge, where nothing is hidden
        textcoords="offset points",
        va="center",
        fontsize=7.5,
    )


def _spread(count: int, width: float) -> list[float]:
    """Offsets around 0, so that equal values do not hide each other."""
    return [width * ((number + 0.5) / count - 0.5) for number in range(count)]


def _shares(totals: Sequence[Mapping[str, float]]) -> list[float]:
    """Shares of the stages, a mean over runs; none if no time was measured."""
    seconds = [[its.get(f"time/{stage}", 0.0) for stage in STAGES] for its in totals]
    shares = [[value / sum(its) for value in its] for its in seconds if sum(its)]
    return [sum(of_stage) / len(shares) for of_stage in zip(*shares, strict=True)]
