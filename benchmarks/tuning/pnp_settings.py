"""What plug-and-play's settings do: first and last noise level and weight of the prior, on simulated 4 mm slices.

    python -m benchmarks.tuning.pnp_settings [HIGH.nii.gz ...] [--denoiser mri-denoiser-fast] [--crop SIDE]

PSNR (dB, inside the head) and chi2 of HQS for each; the last level as a share of the noise. The constants in
invsr/solvers/plug_and_play.py are chosen from it.
"""

import itertools

import invsr
from benchmarks.arguments import parser, row, stem, table, truths
from invsr.numerics.levels import peak
from invsr.priors import pretrained
from invsr.solvers import HQS, Schedule, iterate
from invsr.testing.metrics import evaluate, head_mask


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--thickness", "--noise", "--seed")
    arguments.add_argument("--denoiser", default="mri-denoiser-fast")
    arguments.add_argument("--start", nargs="+", type=float, default=[0.04, 0.07, 0.14])
    arguments.add_argument("--end", nargs="+", type=float, default=[0.25, 0.5, 1.0])
    arguments.add_argument("--weight", nargs="+", type=float, default=[0.1, 0.25, 1.0])
    options = arguments.parse_args()
    prior = pretrained(options.denoiser)
    table(["volume", "start", "end", "weight", "PSNR", "chi2"])
    for truth in truths(options.volumes, options.crop):
        shared = {"noise": options.noise, "seed": options.seed}
        scan = invsr.simulate(truth, slice_thickness=options.thickness, axis=2, **shared)
        scale = peak(scan.data)
        A = invsr.operators.acquisition(scan.grid, reference=truth.grid, slice_thickness=options.thickness)
        mask = head_mask(truth.numpy())
        for start, end, weight in itertools.product(options.start, options.end, options.weight):
            last = end * options.noise
            schedule = Schedule(max(start, last), last, HQS.n_levels, weight * options.noise**2)
            how = {"sigma": options.noise, "schedule": schedule, "max_iter": HQS.n_levels, "rtol": 0.0}
            found = iterate(HQS(), A, scan.data / scale, prior, **how)
            psnr = evaluate(found.x[0, 0].numpy() * scale, truth.numpy(), mask, quick=True)["psnr"]
            settings = [f"{value:g}" for value in (start, end, weight)]
            row([stem(truth), *settings, f"{psnr:.2f}", f"{found.chi2:.2f}"])


if __name__ == "__main__":
    main()
