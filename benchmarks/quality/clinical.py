"""Real scans to isotropic volumes: does the result, sent through the operator again, give the input back?

    python -m benchmarks.quality.clinical SCAN.nii.gz ... --out FOLDER [--spacing 1.0] [--method tv pnp]

Prints gain and chi2 (of what the target grid can hold; "plain chi2" counts every voxel of the scan, also the
in-plane detail that a coarser target leaves out), warnings, seconds; writes a picture of scan, cubic
interpolation and results for each.
"""

import time
import warnings

import invsr
from benchmarks.arguments import parser, stem
from invsr.operators import acquisition
from invsr.report.plot import compare


def main():
    arguments = parser(__doc__, "--out")
    arguments.add_argument("scans", nargs="+")
    arguments.add_argument("--spacing", type=float, default=1.0)
    arguments.add_argument("--method", nargs="+", default=["tv", "pnp"])
    options = arguments.parse_args()
    if options.out is None:
        arguments.error("name a folder for the volumes and pictures with --out")
    options.out.mkdir(parents=True, exist_ok=True)
    print("scan | method | sigma | gain | chi2 | plain chi2 | warnings | seconds")
    for path in options.scans:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scan = invsr.load(path)
        name = stem(scan)
        pictures = {scan.name: scan}
        for method in ["cubic", *options.method]:
            begin = time.perf_counter()
            solution = invsr.reconstruct(scan, method=method, spacing=options.spacing)
            seconds = time.perf_counter() - begin
            pictures[method] = solution.volume
            operator = acquisition(scan.grid, reference=solution.grid)
            plain = float((operator(solution.x) - scan.data).square().mean()) / solution.sigma**2
            print(
                f"{scan.name} | {method} | {solution.sigma:.3g} | {solution.gain:.4f} | {solution.chi2:.3f} | "
                f"{plain:.3f} | {len(caught)} | {seconds:.1f}",
                flush=True,
            )
            invsr.save(solution.volume, options.out / f"{name}_{method}.nii.gz")
        compare(pictures).savefig(options.out / f"{name}.png", dpi=130)


if __name__ == "__main__":
    main()
