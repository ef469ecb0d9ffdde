"""Means over seeds with 95 % t-intervals: pure functions of numbers."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean and half the width of its 95 % interval, which is NaN for a single value."""

    mean: float
    half: float


class Curve(NamedTuple):
    """Points of one run, in the order of x."""

    x: Floats
    y: Floats


class Band(NamedTuple):
    """The mean of several curves, with the bounds of its 95 % interval."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats


@functools.cache
def t_quantile(freedom: float) -> float:
    """What |t| stays below with a chance of 95 %, for 1 degree of freedom or more."""
    # with t = √ν tan θ the density is proportional to cos(θ)^(ν - 1) on a finite range
    angles = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(angles) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(0.95, below / below[-1], angles)))


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of independent values with its t-interval; one value or more."""
    count = len(values)
    mean = float(np.mean(values))
    if count < 2:
        return Estimate(mean, math.nan)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return Estimate(mean, t_quantile(count - 1) * error)


def difference(values: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """Mean of the values minus the baseline's, with Welch's interval (unequal variances)."""
    mean = float(np.mean(values) - np.mean(baseline))
    if min(len(values), len(baseline)) < 2:
        return Estimate(mean, math.nan)
    a, b = (float(np.var(group, ddof=1)) / len(group) for group in (values, baseline))
    if a + b == 0:
        return Estimate(mean, 0.0)
    freedom = (a + b) ** 2 / (a**2 / (len(values) - 1) + b**2 / (len(baseline) - 1))
    # rounding may put it a hair under its least value
    return Estimate(mean, t_quantile(max(freedom, 1.0)) * math.sqrt(a + b))


def trailing_mean(curve: Curve, window: int) -> Curve:
    """Each y becomes the mean of the last `window` ones, of fewer at the start."""
    means = [curve.y[max(0, end - window) : end].mean() for end in range(1, len(curve.y) + 1)]
    return Curve(curve.x, np.asarray(means))


def band(curves: Sequence[Curve]) -> Band:
    """The curves' mean with its t-interval, where all of them are known.

    Curves are straight between their points, so their mean is too between the points of all: no
    grid of x is needed. Beyond the end of any curve there is no mean, as the seeds that are left
    are another sample. Empty where the curves have no x in common.
    """
    start = max(curve.x[0] for curve in curves)
    end = min(curve.x[-1] for curve in curves)
    x = np.unique(np.concatenate([curve.x for curve in curves]))
    x = x[(x >= start) & (x <= end)]
    ys = np.stack([np.interp(x, curve.x, curve.y) for curve in curves])
    points = [estimate(column) for column in ys.T.tolist()]
    mean = np.asarray([point.mean for point in points])
    half = np.asarray([point.half for point in points])
    return Band(x, mean, mean - half, mean + half)


def area(curve: Curve) -> float:
    """Area under a curve divided by its length in x: the mean height; NaN for a single point."""
    if len(curve.x) < 2:
        return math.nan
    heights = (curve.y[1:] + curve.y[:-1]) / 2
    return float(np.sum(heights * np.diff(curve.x)) / (curve.x[-1] - curve.x[0]))
