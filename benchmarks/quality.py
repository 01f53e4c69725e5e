"""Through-plane super-resolution: simulate thick slices, reconstruct by every method, score.

    python benchmarks/quality.py [VOLUME.nii.gz ...] [--thickness 4] [--gap 0] [--axis k] [--noise 0.01]

Without a volume it takes the MNI152 template in nilearn's package. PSNR with the peak at the truth's 99.9th
percentile and mean 3-D SSIM, both inside the head; gains are over cubic spline interpolation.
"""

import argparse

import invsr
from invsr.demo import template
from invsr.methods import METHODS
from invsr.metrics import evaluate, head_mask
from invsr.priors.pretrained import models

# Methods that are a trained network, which may not have come yet.
TRAINED = ("unrolled", "deq")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="*")
    parser.add_argument("--thickness", type=float, default=4.0)
    parser.add_argument("--gap", type=float, default=0.0)
    parser.add_argument("--axis", choices="ijk", default="k")
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument(
        "--methods", nargs="+", default=[name for name in METHODS if name not in TRAINED or models(name)]
    )
    options = parser.parse_args()
    print("volume | method | PSNR | SSIM | dPSNR | dSSIM | chi2 | gain")
    for truth in map(invsr.load, options.volumes) if options.volumes else [template()]:
        scan = invsr.simulate(
            truth,
            slice_thickness=options.thickness,
            gap=options.gap,
            axis="ijk".index(options.axis),
            noise=options.noise,
        )
        mask = head_mask(truth.numpy())
        base = None
        for method in ["cubic", *(name for name in options.methods if name != "cubic")]:
            found = invsr.reconstruct(scan, method=method, reference=truth.grid)
            scores = evaluate(found.x[0, 0].numpy(), truth.numpy(), mask, quick=True)
            psnr, ssim = scores["psnr"], scores["ssim"]
            base = base or (psnr, ssim)
            gains = f"{psnr - base[0]:+.2f} | {ssim - base[1]:+.4f}"
            row = f"{truth.name} | {method} | {psnr:.2f} | {ssim:.4f} | {gains} | {found.chi2:.2f} | {found.gain:.4f}"
            print(row, flush=True)


if __name__ == "__main__":
    main()
