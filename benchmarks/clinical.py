"""Real scans to isotropic volumes: does the result, sent through the operator again, give the input back?

    python benchmarks/clinical.py OUT_FOLDER SCAN.nii.gz [...] [--spacing 1.0] [--method tv]

Prints gain and chi2 (of what the target grid can hold; "plain chi2" counts every voxel of the scan, also the
in-plane detail that a coarser target leaves out), warnings, seconds; writes a picture of scan, cubic
interpolation and result for each.
"""

import argparse
import time
import warnings
from pathlib import Path

import invsr
from invsr.operators import acquisition
from invsr.plot import compare


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("scans", nargs="+")
    parser.add_argument("--spacing", type=float, default=1.0)
    parser.add_argument("--method", default="tv")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print("scan | sigma | gain | chi2 | plain chi2 | warnings | seconds")
    for path in options.scans:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            begin = time.perf_counter()
            scan = invsr.load(path)
            solution = invsr.reconstruct(scan, method=options.method, spacing=options.spacing)
            seconds = time.perf_counter() - begin
        operator = acquisition(scan.grid, reference=solution.grid)
        plain = float((operator(solution.x) - scan.data).square().mean()) / solution.sigma**2
        print(
            f"{scan.name} | {solution.sigma:.3g} | {solution.gain:.4f} | {solution.chi2:.3f} | {plain:.3f} | "
            f"{len(caught)} | {seconds:.1f}",
            flush=True,
        )
        cubic = invsr.reconstruct(scan, method="cubic", spacing=options.spacing)
        figure = compare({scan.name: scan, "cubic": cubic.volume, options.method: solution.volume})
        figure.savefig(options.out / f"{scan.name.split('.nii')[0]}.png", dpi=130)
        invsr.save(solution.volume, options.out / f"{scan.name.split('.nii')[0]}_{options.method}.nii.gz")


if __name__ == "__main__":
    main()
