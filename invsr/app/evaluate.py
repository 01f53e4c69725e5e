"""Scores of a file against the file of the truth."""

from __future__ import annotations

from pathlib import Path

from invsr.errors import InvsrError


def scores_of(image: Path, truth: Path, mask: Path | None, geometry: str | None) -> dict[str, float]:
    """What `invsr.testing.metrics.evaluate` finds, inside a mask where one is given.

    Raises
    ------
    InvsrError
        When the files do not lie on one grid, or the truth has no voxel above 0.
    """
    from invsr.io.nifti import load
    from invsr.testing.metrics import evaluate

    found, true = load(image, geometry=geometry), load(truth, geometry=geometry)
    inside = None if mask is None else load(mask, 0, geometry=geometry)
    for other in [true] + ([] if inside is None else [inside]):
        if other.grid != found.grid:
            raise InvsrError(
                f"{other.name}: lies on {other.grid} but {found.name} on {found.grid}: "
                "reconstruct with --reference to compare voxel by voxel"
            )
    if not bool((true.data > 0).any()):
        raise InvsrError(f"{true.name}: has no voxel above 0, which the peak is taken from: check which file was given")
    return evaluate(found.numpy(), true.numpy(), None if inside is None else inside.numpy() != 0)
