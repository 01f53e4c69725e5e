"""What plug-and-play's settings do: first and last noise level and weight of the prior, on simulated 4 mm slices.

    python benchmarks/pnp_settings.py VOLUME.nii.gz ... [--denoiser mri-denoiser-fast] [--thickness 4] [--noise 0.01]

PSNR (dB, inside the head) and chi2 of HQS for each; the last level as a share of the noise. The constants in
invsr/solvers/iterate.py are chosen from it.
"""

import argparse
import itertools

import invsr
from invsr.priors import pretrained
from invsr.solvers import HQS, Schedule, iterate
from invsr.solvers.plug_and_play import STEPS
from invsr.solvers.residuals import peak
from invsr.testing.metrics import evaluate, head_mask


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="+")
    parser.add_argument("--denoiser", default="mri-denoiser-fast")
    parser.add_argument("--thickness", type=float, default=4.0)
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument("--start", nargs="+", type=float, default=[0.04, 0.07, 0.14])
    parser.add_argument("--end", nargs="+", type=float, default=[0.25, 0.5, 1.0])
    parser.add_argument("--weight", nargs="+", type=float, default=[0.1, 0.25, 1.0])
    options = parser.parse_args()
    prior = pretrained(options.denoiser)
    print("| volume | start | end | weight | PSNR | chi2 |\n|---|---|---|---|---|---|")
    for path in options.volumes:
        truth = invsr.load(path)
        scan = invsr.simulate(truth, slice_thickness=options.thickness, axis=2, noise=options.noise)
        scale = peak(scan.data)
        A = invsr.operators.acquisition(scan.grid, reference=truth.grid, slice_thickness=options.thickness)
        mask = head_mask(truth.numpy())
        name = truth.name.split(".")[0]
        for start, end, weight in itertools.product(options.start, options.end, options.weight):
            last = end * options.noise
            schedule = Schedule(max(start, last), last, STEPS, weight * options.noise**2)
            found = iterate(
                HQS(), A, scan.data / scale, prior,
                sigma=options.noise, schedule=schedule, max_iter=STEPS, rtol=0.0,
            )  # fmt: skip
            psnr = evaluate(found.x[0, 0].numpy() * scale, truth.numpy(), mask, quick=True)["psnr"]
            print(f"| {name} | {start:g} | {end:g} | {weight:g} | {psnr:.2f} | {found.chi2:.2f} |", flush=True)


if __name__ == "__main__":
    main()
