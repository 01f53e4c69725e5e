"""The result of checking an operator."""

from __future__ import annotations

from dataclasses import dataclass, field

from invsr.errors import InvsrError


class OperatorCheckError(InvsrError, AssertionError):
    """An operator that breaks its contract: the message names the properties and by how much each one fails."""


@dataclass(frozen=True)
class OperatorReport:
    """The measurements of `check_operator`.

    Attributes
    ----------
    operator : str
        Name of the operator's class.
    deviations : dict of str to float
        Relative deviation of each property that was checked; infinite where shapes, types or devices differ.
    limits : dict of str to float
        Largest deviation allowed.
    skipped : dict of str to str
        Properties that were not checked, and why.
    """

    operator: str
    deviations: dict[str, float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """The properties that deviate by more than their limit."""
        return [name for name, found in self.deviations.items() if not found <= self.limits[name]]

    def __str__(self) -> str:
        measured = [f"  {name}: {found:.1e} (limit {self.limits[name]:.0e})" for name, found in self.deviations.items()]
        skipped = [f"  {name}: skipped, {reason}" for name, reason in self.skipped.items()]
        return "\n".join([self.operator, *measured, *skipped])
