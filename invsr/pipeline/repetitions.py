"""Reconstructions after the first one, from which its uncertainty is told."""

from __future__ import annotations

from dataclasses import dataclass

from invsr.errors import InvsrError
from invsr.pipeline.method import Method
from invsr.uncertainty.deviation import require_samples

# What they are for: a standard deviation of the error, or of the noise alone.
BOOTSTRAP, REPLICAS = "bootstrap", "replicas"
# How many, by default.
REPETITIONS = 8


@dataclass(frozen=True)
class Repetitions:
    """Reconstructions after the first one, and what they are for.

    Attributes
    ----------
    kind : {"bootstrap", "replicas"} or None
    count : int
    """

    kind: str | None = None
    count: int = 0

    @classmethod
    def of(cls, uncertainty: str | None, n_samples: int | None) -> tuple[Repetitions, int | None]:
        """Those that options ask for, and the number of samples that is left for the method.

        Raises
        ------
        InvsrError
            When the kind of uncertainty is unknown.
        """
        if uncertainty is None:
            return cls(), n_samples
        if uncertainty not in (BOOTSTRAP, REPLICAS):
            raise InvsrError(f"unknown uncertainty {uncertainty!r}: use {BOOTSTRAP} or {REPLICAS}, or leave it out")
        return cls(uncertainty, n_samples or REPETITIONS), None

    def require(self, method: Method | None) -> None:
        """Raise unless a method can be repeated so often."""
        if self.kind is None:
            return
        if method is not None and method.name == "posterior":
            raise InvsrError(f"method posterior states its own uncertainty: leave {self.kind} out")
        require_samples(self.count)
