"""How far the automatic weight of TV is from the best one: PSNR over a sweep around it.

    python benchmarks/tv_weight.py [VOLUME.nii.gz ...] [--noise 0.01] [--thickness 4]

Without a volume it takes the MNI152 template in nilearn's package. Each high-resolution volume is simulated
as a thick-slice scan and reconstructed with the weight chosen automatically from the estimated noise, then
with fixed multiples of it. Gains are over cubic interpolation, in dB inside the head; chi2 in brackets.
"""

import argparse

import numpy as np

import invsr
from invsr.app.demo import template
from invsr.testing.metrics import head_mask

FACTORS = (0.125, 0.25, 0.5, 0.7, 1.0, 1.4, 2.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="*")
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument("--thickness", type=float, default=4.0)
    options = parser.parse_args()
    print("volume | auto | best - auto | " + " | ".join(f"x {f:g}" for f in FACTORS))
    for truth in map(invsr.load, options.volumes) if options.volumes else [template()]:
        data = truth.numpy()
        peak = np.percentile(data[data > 0], 99.9)
        mask = head_mask(data)
        scan = invsr.simulate(truth, slice_thickness=options.thickness, axis=2, noise=options.noise)

        def psnr(solution, data=data, mask=mask, peak=peak):
            error = (solution.x[0, 0].numpy() - data)[mask] / peak
            return -10 * np.log10(np.mean(error**2))

        base = psnr(invsr.reconstruct(scan, method="cubic", reference=truth.grid))
        auto = invsr.reconstruct(scan, method="tv", reference=truth.grid)
        gain = psnr(auto) - base
        sweep = []
        for factor in FACTORS:
            fixed = invsr.reconstruct(scan, method="tv", reference=truth.grid, lam=factor * auto.lam)
            sweep.append((psnr(fixed) - base, fixed.chi2))
        best = max(g for g, _ in sweep)
        cells = " | ".join(f"{g:+.2f} [{c:.2f}]" for g, c in sweep)
        print(f"{truth.name} | {gain:+.2f} [{auto.chi2:.2f}] | {best - gain:.2f} | {cells}", flush=True)


if __name__ == "__main__":
    main()
