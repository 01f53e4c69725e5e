"""How well each method does on volumes of known truth: thick slices simulated, reconstructed, scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from invsr.errors import InvsrError
from invsr.grid import SAME_POSITION
from invsr.pipeline.methods import METHODS
from invsr.pipeline.run import reconstruct
from invsr.testing.metrics import evaluate, head_mask
from invsr.testing.simulation import simulate
from invsr.volume import Volume

# Takes many reconstructions: run when it is named.
SLOW = ("posterior",)
BASE = "cubic"


@dataclass(frozen=True)
class Score:
    """One method on one volume: PSNR in dB and mean SSIM of the head in the slices, and what the solution says."""

    volume: str
    method: str
    psnr: float
    ssim: float
    chi2: float
    gain: float


def available() -> list[str]:
    """Methods that can be run in a minute or so, cubic interpolation first."""
    return [BASE, *(name for name in METHODS if name != BASE and name not in SLOW)]


def benchmark(
    volumes: Sequence[Volume],
    methods: Sequence[str] | None = None,
    *,
    slice_thickness: float = 4.0,
    gap: float = 0.0,
    axis: int = 2,
    noise: float = 0.01,
    seed: int = 0,
) -> Iterator[Score]:
    """Scores of methods on volumes that are taken for the truth; cubic interpolation always comes first.

    Parameters
    ----------
    volumes : sequence of Volume
        Isotropic, of high resolution.
    methods : sequence of str, optional
        By default all that can be run.
    slice_thickness, gap : float, mm
    axis : {0, 1, 2}
        Across the slices.
    noise : float
        As a share of the volume's peak.
    seed : int

    Raises
    ------
    InvsrError
        When a method is unknown, or as `invsr.simulate`.
    """
    chosen = available() if methods is None else [BASE, *(name for name in methods if name != BASE)]
    for name in chosen:
        if name not in METHODS:
            raise InvsrError(f"unknown method {name!r}: use some of {', '.join(METHODS)}")
    for truth in volumes:
        scan = simulate(truth, slice_thickness=slice_thickness, gap=gap, axis=axis, noise=noise, seed=seed)
        mask = head_mask(truth.numpy())
        # What lies past the last slice was not measured: results are 0 there.
        past = int(scan.grid.extent[axis] / truth.grid.spacing[axis] + SAME_POSITION)
        mask[(slice(None),) * axis + (slice(past, None),)] = False
        for name in chosen:
            found = reconstruct(scan, method=name, reference=truth.grid, seed=seed)
            scores = evaluate(found.x[0, 0].cpu().numpy(), truth.numpy(), mask, quick=True)
            chi2 = float("nan") if found.chi2 is None else found.chi2
            yield Score(truth.name, name, scores["psnr"], scores["ssim"], chi2, found.gain)
