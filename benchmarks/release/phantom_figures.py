"""The figures that tests/test_regression.py holds the package to.

    python -m benchmarks.release.phantom_figures            # print them beside the stored ones
    python -m benchmarks.release.phantom_figures --write    # store them, after a change that is meant to move them

PSNR in dB (peak 1) of every method on two phantoms and four acquisitions, with automatic weights and
estimated noise.
"""

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
# Every solver and denoiser once per phantom, with the first acquisition.
PNP = {
    "pnp hqs": {"solver": "hqs"},
    "pnp pgd": {"solver": "pgd"},
    "pnp red": {"solver": "red"},
    "pnp fast": {"denoiser": "mri-denoiser-fast"},
    "pnp gs": {"denoiser": "mri-denoiser-gs", "max_iter": 30},
}


def figures():
    grid = centred_grid((48, 48, 48), 1.0)
    head, head_grid = shepp_logan((48, 48, 48))
    phantoms = {
        "shapes": invsr.Volume(shapes(grid, n_samples=16, size=48.0), grid),
        "shepp_logan": invsr.Volume(head, head_grid),
    }
    found = {}
    for phantom, truth in phantoms.items():
        for name, protocol in ACQUISITIONS.items():
            scan = invsr.simulate(truth, noise=0.01, **protocol)
            shared = {key: protocol[key] for key in ("slice_thickness", "slice_profile") if key in protocol}
            for method, options in (METHODS | (PNP if name == next(iter(ACQUISITIONS)) else {})).items():
                solution = invsr.reconstruct(scan, method=method.split()[0], reference=truth.grid, **shared, **options)
                psnr = -10 * np.log10(float((solution.x - truth.data).square().mean()))
                found[f"{phantom} | {name} | {method}"] = round(psnr, 3)
    return found


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--write", action="store_true")
    options = arguments.parse_args()
    found = figures()
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    for name, value in found.items():
        print(f"{name} | {value:.3f} | stored {stored.get(name)}")
    if options.write:
        STORED.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
