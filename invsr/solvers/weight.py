"""The weight of the prior: given, or chosen so that the residual chi2 is about 1."""

from __future__ import annotations

from invsr.errors import InvsrError

# Automatic weight: the residual chi2 it aims at. The true volume has 1, but it has not been fitted to the
# noise; a fit takes some of it up. `benchmarks/tv_weight.py` shows the score against this number.
CHI2_TARGET = 0.85
CHI2_TOLERANCE = 0.02


def require_weight(lam: float | None, sigma: float | None) -> None:
    """Raise unless `lam` is given and above zero, or `sigma` is, from which it can be chosen.

    Raises
    ------
    InvsrError
        Naming the number that is missing or out of range.
    """
    if lam is None and not (sigma is not None and sigma > 0):
        raise InvsrError(f"choosing lam automatically needs a noise level above zero, not {sigma}: give lam or sigma")
    if lam is not None and not lam > 0:
        raise InvsrError(f"lam is {lam}: the weight of the prior must be above zero")
