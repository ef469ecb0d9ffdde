"""A run's numbers as terminal tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from erl_envs.records import add_known


def print_run(run: Mapping[str, Any], console: Console) -> None:
    """Print each environment's numbers, beside what random and the oracle reach."""
    for env, metrics in run["metrics"].items():
        console.print(_summary(env, run, metrics))
        console.print(_difficulty(env, metrics))


def _summary(env: str, run: Mapping[str, Any], metrics: Mapping[str, Any]) -> Table:
    split = escape(run["envs"][env]["split"])
    table = Table(title=f"{env}, {split}: {metrics['tasks']} tasks × {run['samples']}")
    two = metrics["reward_after"] is not None
    policy = re.split("[:/]", run["policy"]["spec"])[-1]
    columns = ["random", policy, *(["after reflection"] if two else []), "oracle"]
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    reference, gap = metrics["reference"], [""] * (2 if two else 1)

    def after(key: str) -> list[str]:
        return [interval(metrics[key])] if two else []

    table.add_row(
        "reward [95 %]",
        number(reference["random"]),
        interval(metrics["reward"]),
        *after("reward_after"),
        number(reference["oracle"]),
    )
    table.add_row("success [95 %]", "", interval(metrics["success"]), *after("success_after"), "")
    tokens = add_known(metrics["tokens"]["prompt"], metrics["tokens"]["completion"])
    for name, value in (
        *((f"pass@{k}", number(v)) for k, v in metrics["pass_at"].items() if k != "1"),
        ("turns", number(metrics["turns"], 1)),
        ("invalid actions", number(metrics["invalid_action_rate"])),
        ("invalid episodes", f"{metrics['invalid']} of {metrics['episodes']}"),
        ("tokens", "unknown" if tokens is None else f"{tokens:,}"),
        ("policy seconds", number(metrics["seconds"], 1)),
    ):
        table.add_row(name, "", value, *gap)
    return table


def _difficulty(env: str, metrics: Mapping[str, Any]) -> Table:
    rows = metrics["by_difficulty"]
    table = Table(title=f"{env}: success by turns of a shortest solution")
    table.add_column("turns")
    for row in rows:
        table.add_column(str(row["difficulty"] or "unsolved"), justify="right")
    table.add_row("tasks", *(str(row["tasks"]) for row in rows))
    table.add_row("success", *(number(row["success"], 2) for row in rows))
    if metrics["success_after"]:
        table.add_row("after", *(number(row["success_after"], 2) for row in rows))
    return table


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash for one that is not known."""
    return "–" if value is None else f"{value:.{digits}f}"


def interval(estimate: Mapping[str, float | None]) -> str:
    """A mean with its interval."""
    low, high = (number(estimate[key]).replace("0.", ".", 1) for key in ("low", "high"))
    return f"{number(estimate['mean'])} [{low}, {high}]"
