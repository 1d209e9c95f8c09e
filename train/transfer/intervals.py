"""How sure a share of right answers is."""

import numpy as np


def bootstrap_interval(
    hits: int, count: int, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Within which the accuracy lies for so many resamplings of the samples (Efron 1979).

    A resampling of answers that are right or wrong has binomially many right ones, so that is what
    is drawn.

    >>> [round(each, 2) for each in bootstrap_interval(80, 100)]
    [0.72, 0.88]
    """
    drawn = np.random.default_rng(seed).binomial(count, hits / count, draws) / count
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
