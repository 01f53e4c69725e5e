"""How far the automatic weight of TV is from the best one: PSNR over a sweep around it.

    python -m benchmarks.tuning.tv_weight [HIGH.nii.gz ...] [--noise 0.01] [--thickness 4]

Each high-resolution volume is simulated as a thick-slice scan and reconstructed with the weight chosen
automatically from the estimated noise, then with fixed multiples of it. Gains are over cubic interpolation, in dB
inside the head; chi2 in brackets.
"""

import numpy as np

import invsr
from benchmarks.arguments import parser, row, stem, table, truths
from invsr.testing.metrics import head_mask

FACTORS = (0.125, 0.25, 0.5, 0.7, 1.0, 1.4, 2.0)


def main():
    options = parser(__doc__, "volumes", "--crop", "--thickness", "--noise", "--seed").parse_args()
    table(["volume", "auto", "best - auto", *(f"x {f:g}" for f in FACTORS)])
    for truth in truths(options.volumes, options.crop):
        data = truth.numpy()
        peak = np.percentile(data[data > 0], 99.9)
        mask = head_mask(data)
        shared = {"noise": options.noise, "seed": options.seed}
        scan = invsr.simulate(truth, slice_thickness=options.thickness, axis=2, **shared)

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
        cells = [f"{g:+.2f} [{c:.2f}]" for g, c in sweep]
        row([stem(truth), f"{gain:+.2f} [{auto.chi2:.2f}]", f"{best - gain:.2f}", *cells])


if __name__ == "__main__":
    main()
