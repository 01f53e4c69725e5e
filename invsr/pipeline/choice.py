"""From a name and options to a method object, and which one suits a problem when none is named."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from invsr.errors import InvsrError, InvsrWarning
from invsr.models.registry import known
from invsr.models.weights import DRIVER
from invsr.operators.separable import Separable
from invsr.operators.stack import Stack
from invsr.pipeline.memory import Budget
from invsr.pipeline.methods import METHODS, TV, Cubic, Equilibrium, Method, PnP, Posterior, Unrolled, options_of
from invsr.pipeline.problem import InverseProblem, SliceGeometry
from invsr.pipeline.ranges import GAP, THIN
from invsr.pipeline.raw_problem import RawProblem
from invsr.solvers.trained import DEQ, load_solver

# Whichever `choose_method` finds.
AUTO = "auto"
# Asked in turn for the options that imply a method.
IMPLIED = (TV, PnP, Posterior)
# Slices thinner than so many target voxels are hardly thick; those with gaps below this share of it lie close.
HARDLY, CLOSE = 1.7, 0.5
# The unrolled network for k-space.
KSPACE_MODEL = "mri-unrolled-kspace"
# Belongs to the run: methods that draw no random numbers have no use for it.
SEED = "seed"


def method_of(method: str | Method, options: Mapping[str, Any], seed: int = 0) -> Method | None:
    """The method of a name and the options that were given (not None); None where `choose_method` is to decide.

    Parameters
    ----------
    method : str or Method
        A name, "auto", or a method with its own options.
    options : mapping
        By name; None for those that were not given.
    seed : int
        For methods that draw random numbers.

    Raises
    ------
    InvsrError
        When the method is unknown or does not use an option; the message names both.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InvsrError(f"{name} is {value}: give a finite number")
    if isinstance(method, Method):
        if given:
            names = ", ".join(given)
            raise InvsrError(f"{names} given beside a {type(method).__name__} object: put the options into the object")
        return method
    if method == AUTO:
        if not given:
            return None
        return _made(_implied(given), given, seed)
    if method not in METHODS:
        raise InvsrError(f"unknown method {method!r}: use one of {AUTO}, {', '.join(METHODS)}")
    return _made(METHODS[method], given, seed)


def _made(kind: type[Method], given: Mapping[str, Any], seed: int) -> Method:
    own = options_of(kind)
    for name, value in given.items():
        if name not in own:
            users = [one.name for one in METHODS.values() if name in options_of(one)]
            advice = f"leave it out, or use method {' or '.join(users)}" if users else "leave it out"
            raise InvsrError(f"method {kind.name} does not use the option {name} ({value}): {advice}")
    return kind(**given, **({SEED: seed} if SEED in own else {}))


def _implied(given: Mapping[str, Any]) -> type[Method]:
    """The method that options without a name ask for."""
    if "model" in given:
        model = str(given["model"])
        weights_file = model.endswith(".safetensors")
        kind = load_solver(model, None)[1][DRIVER]["kind"] if weights_file else known(model)["kind"]
        return Equilibrium if kind == DEQ else Unrolled
    for candidate in IMPLIED:
        if set(given) <= set(options_of(candidate)):
            return candidate
    raise InvsrError(f"no method uses all of the options {', '.join(given)}: name a method, or leave some out")


def choose_method(problem: InverseProblem, seed: int = 0, budget: Budget | None = None) -> Method:
    """The best method for a problem that the benchmarks show, and that fits into the memory.

    What the unrolled networks were trained for, slices (larger gaps too) and k-space: "unrolled". Slices hardly thicker
    than the target's voxels, several parallel scans beyond its training, and other k-space that does not merely end
    early: "pnp". Everything else, several scans whose slices moved, thicker slices, more noise and other noise models
    included: "tv". Where nothing else fits: "cubic".
    """
    budget = Budget.on(problem.device) if budget is None else budget
    first, *others = _ranked(problem, seed)
    needed = first.memory(problem)
    if needed <= budget.available:
        return first
    fitting = next((one for one in others if one.memory(problem) <= budget.available), None)
    if fitting is None:  # which `require_memory` refuses
        return first
    warnings.warn(
        f"method {first} needs about {needed / 2**30:.1f} GiB of memory and {budget}: {fitting} is used instead",
        InvsrWarning,
        stacklevel=2,
    )
    return fitting


def _ranked(problem: InverseProblem, seed: int) -> list[Method]:
    """Methods that suit a problem, the best one first."""
    return [*_best(problem, seed), TV(), Cubic()]


def _best(problem: InverseProblem, seed: int) -> list[Method]:
    if not problem.is_gaussian:
        return []
    if problem.operator.complex_range:
        trained = Unrolled(model=KSPACE_MODEL)
        fits = [trained] if isinstance(problem, RawProblem) and not trained.outside(problem) else []
        return [*fits, *([PnP(seed=seed)] if problem.suits_denoisers else [])]
    unrolled = Unrolled()
    slices, outside = problem.slices, unrolled.outside(problem).keys()
    # Beyond the gaps and below the thickness of training the network is better than TV all the same; TV is with thicker
    # slices and more noise, plug-and-play where slices are hardly thick and lie close (tables of choice and stacks).
    if slices is None or outside - {GAP, THIN}:
        several = isinstance(problem.operator, Stack)
        parallel = several and all(isinstance(one, Separable) for one in problem.operator.operators)
        return [PnP(seed=seed)] if parallel else []
    return [PnP(seed=seed)] if is_hardly_thick(slices) else [unrolled]


def is_hardly_thick(slices: SliceGeometry) -> bool:
    """Whether slices are hardly thicker than voxels and lie close."""
    return slices.thickness < HARDLY and slices.gap < CLOSE * slices.thickness
