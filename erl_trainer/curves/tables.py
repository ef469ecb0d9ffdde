"""The numbers behind the figures, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from erl_trainer.curves.results import Record, Results
from erl_trainer.curves.statistics import Estimate, area, difference, estimate

_NOTES = """\
Final reward is that of the last evaluation, of first attempts. Means are over seeds, ± is half the
width of a 95 % t-interval; differences to {baseline} have Welch's 95 % interval. The area under the
curve of validation reward against steps is divided by the steps. "At so many tokens" is the reward
after that many sampled tokens, the fewest that a finished run of the environment sampled. Tokens,
updates and seconds are a run's means.
"""


def tables(results: Results) -> str:
    """One table an environment, then the runs that are not finished."""
    baseline = results.first("grpo")
    notes = _NOTES.format(baseline=baseline or "the baseline")
    parts = ["# Results of the grid\n", notes]
    parts += [_table(results, environment, baseline) for environment in results.environments]
    unfinished = [r for r in results.records if not r.ended]
    if unfinished:
        names = [f"- {record.title}" for record in unfinished]
        parts += ["## Not finished, and left out\n", "\n".join(names) + "\n"]
    return "\n".join(parts)


def _table(results: Results, environment: str, baseline: str | None) -> str:
    runs = {m: _measured(results.of(environment, m)) for m in results.methods}
    runs = {method: records for method, records in runs.items() if records}
    tokens = min(
        (r.totals["tokens/sampled"] for records in runs.values() for r in records), default=0
    )
    columns = [
        "method",
        "seeds",
        "final reward",
        f"difference to {baseline}",
        f"at {tokens:,.0f} tokens",
        "area under the curve",
        "sampled tokens",
        "updates",
        "seconds",
    ]
    lines = [f"## {environment}\n", _row(columns), _row(["---", *["---:"] * (len(columns) - 1)])]
    against = runs.get(baseline or "", [])
    for method, records in runs.items():
        lines.append(_row(_cells(results, method, records, against, tokens)))
    for name, value in results.references.get(environment, {}).items():
        lines.append(_row([name, "", f"{value:.3f}", *[""] * (len(columns) - 3)]))
    return "\n".join(lines) + "\n"


def _cells(
    results: Results, method: str, records: list[Record], against: list[Record], tokens: float
) -> Iterator[str]:
    def over(value: Callable[[Record], float]) -> Estimate:
        return estimate([value(record) for record in records])

    yield method
    yield str(len(records)) + (
        f" of {len(results.seeds)}" if len(records) < len(results.seeds) else ""
    )
    yield _plus_minus(over(lambda record: record.final))
    yield _difference(records, against)
    yield _plus_minus(over(lambda record: record.final_at(tokens)))
    yield _plus_minus(over(lambda record: area(record.curve("eval/reward"))))
    for key in ("tokens/sampled", "updates", "time/wall"):
        yield f"{np.mean([record.totals[key] for record in records]):,.0f}"


def _measured(records: list[Record]) -> list[Record]:
    return [record for record in records if not math.isnan(record.final)]


def _plus_minus(its: Estimate) -> str:
    return f"{its.mean:.3f}" + ("" if math.isnan(its.half) else f" ± {its.half:.3f}")


def _difference(records: list[Record], against: list[Record]) -> str:
    if not against or records == against:
        return ""
    mean, half = difference([r.final for r in records], [r.final for r in against])
    if math.isnan(half):
        return f"{mean:+.3f}"
    return f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]"


def _row(cells: Iterator[str] | list[str]) -> str:
    # a bar in a name would end its cell
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
