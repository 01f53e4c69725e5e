"""The figures that tests/test_regression.py holds the package to.

    python -m benchmarks.release.phantom_figures            # print them beside the stored ones
    python -m benchmarks.release.phantom_figures --write    # store them, after a change that is meant to move them

PSNR in dB (peak 1) of every method on two phantoms and three acquisitions, with automatic weights and estimated noise;
of every solver and denoiser on a smaller one.
"""

import functools
import json
from pathlib import Path

import numpy as np

import invsr
from benchmarks.arguments import parser
from invsr.testing.phantoms import centred_grid, shapes, shepp_logan

STORED = Path(__file__).parents[2] / "tests" / "phantom_figures.json"
ACQUISITIONS = {
    "4 mm": {"slice_thickness": 4.0, "axis": 2},
    "3 mm, gap 1 mm, boxcar": {"slice_thickness": 3.0, "gap": 1.0, "slice_profile": "boxcar", "axis": 0},
    "4 mm slr, pixels x 1.5": {"slice_thickness": 4.0, "slice_profile": "slr", "axis": 1, "in_plane_factor": 1.5},
}
METHODS = {"cubic": {}, "tikhonov": {}, "tv": {}, "tv huber": {"huber": 0.02}, "pnp": {}, "unrolled": {}}
PNP = {
    "pnp hqs": {"solver": "hqs"},
    "pnp pgd": {"solver": "pgd"},
    "pnp red": {"solver": "red"},
    "pnp fast": {"denoiser": "mri-denoiser-fast"},
    "pnp gs": {"denoiser": "mri-denoiser-gs", "max_iter": 10},
}
FIRST = (next(iter(METHODS)), next(iter(PNP)))
PHANTOMS = ("shapes", "shepp_logan")
SMALL = "few shapes"
# They take longest; the other acquisitions have them.
LEFT_OUT = (
    "shapes | 4 mm slr, pixels x 1.5 | pnp",
    "shepp_logan | 4 mm slr, pixels x 1.5 | pnp",
    "shepp_logan | 3 mm, gap 1 mm, boxcar | pnp",
)


def cases():
    """Names of all cases: phantom | acquisition | method."""
    found = [f"{one} | {name} | {method}" for one in PHANTOMS for name in ACQUISITIONS for method in METHODS]
    found = [case for case in found if case not in LEFT_OUT]
    return found + [f"{SMALL} | {next(iter(ACQUISITIONS))} | {method}" for method in PNP]


@functools.cache
def phantom(name):
    if name == "shepp_logan":
        return invsr.Volume(*shepp_logan((48, 48, 48)))
    side = 32 if name == SMALL else 48
    grid = centred_grid((side, side, side), 1.0)
    return invsr.Volume(shapes(grid, n_samples=16, size=float(side)), grid)


def figure(case):
    """PSNR of a case, dB."""
    name, acquired, method = case.split(" | ")
    truth, acquisition = phantom(name), ACQUISITIONS[acquired]
    scan = invsr.simulate(truth, noise=0.01, **acquisition)
    options = {key: acquisition[key] for key in ("slice_thickness", "slice_profile") if key in acquisition}
    options |= (METHODS | PNP)[method]
    # Faults of slices are looked for before a method is asked: once for each scan is enough.
    options |= {} if method in FIRST else {"faults": "keep"}
    found = invsr.reconstruct(scan, method=method.split()[0], reference=truth.grid, **options)
    return round(-10 * np.log10(float((found.x - truth.data).square().mean())), 3)


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--write", action="store_true")
    options = arguments.parse_args()
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    found = {}
    for case in cases():
        found[case] = figure(case)
        print(f"{case} | {found[case]:.3f} | stored {stored.get(case)}", flush=True)
    if options.write:
        STORED.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
