"""What a result's uncertainty is told from: more reconstructions, or a network that knows the method's errors."""

from __future__ import annotations

from dataclasses import dataclass

from invsr.errors import InvsrError
from invsr.pipeline.method import Method
from invsr.pipeline.problem import InverseProblem
from invsr.uncertainty.deviation import require_samples

# A standard deviation of the error, by a network or by more reconstructions; of the noise alone, by more of them.
PREDICTED, BOOTSTRAP, REPLICAS = "predicted", "bootstrap", "replicas"
KINDS = (PREDICTED, BOOTSTRAP, REPLICAS)
# How many, by default.
REPETITIONS = 8


@dataclass(frozen=True)
class Repetitions:
    """Reconstructions after the first one, and what they are for.

    Attributes
    ----------
    kind : {"predicted", "bootstrap", "replicas"} or None
    count : int
        0 for "predicted".
    """

    kind: str | None = None
    count: int = 0

    @classmethod
    def of(cls, uncertainty: str | None, n_samples: int | None) -> tuple[Repetitions, int | None]:
        """Those that options ask for, and the number of samples that is left for the method.

        Raises
        ------
        InvsrError
            When the kind of uncertainty is unknown, or takes no samples.
        """
        if uncertainty is None:
            return cls(), n_samples
        if uncertainty not in KINDS:
            raise InvsrError(f"unknown uncertainty {uncertainty!r}: use {', '.join(KINDS)}, or leave it out")
        if uncertainty == PREDICTED:
            if n_samples is not None:
                raise InvsrError(f"uncertainty {PREDICTED} takes no samples: leave n_samples ({n_samples}) out")
            return cls(uncertainty), None
        return cls(uncertainty, REPETITIONS if n_samples is None else n_samples), None

    def require(self, method: Method | None, problem: InverseProblem | None = None) -> None:
        """Raise unless a method, as far as it is known, and a problem allow for it."""
        if self.kind is None:
            return
        if method is not None and method.name == "posterior":
            raise InvsrError(f"method posterior states its own uncertainty: leave {self.kind} out")
        if self.kind != PREDICTED:
            require_samples(self.count)
        elif method is not None and not method.knows_deviation:
            raise InvsrError(
                f"no network knows the errors of {method.described}: use uncertainty {BOOTSTRAP} (command line: "
                f"--uncertainty {BOOTSTRAP})"
            )
        elif problem is not None and problem.obstacle:
            raise InvsrError(f"uncertainty {PREDICTED}: {problem.obstacle}: use uncertainty {BOOTSTRAP}")
