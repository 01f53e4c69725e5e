"""How often faults of slices are found, and how often where there are none.

    python -m benchmarks.quality.slice_faults [HIGH.nii.gz ...] [--cases 200] [--seed 0]

Each case: a volume, an axis, slices 3 to 6 voxels thick, 0.5 to 3 % noise, and with a chance of 1 in 3 each: every
other slice darker by 5 to 30 %, every other slice moved by 0.7 to 3 pixels, one slice darker by 25 to 50 %, one slice
in place of another a quarter of the scan away, one or two empty slices, one to five spikes of 3 to 1000 times bright
tissue. A finding counts as right with the right slices or voxels, a gain by turns to 3 %, of one slice to 10 %, a
shift to half a pixel.
"""

from dataclasses import dataclass

import numpy as np
import torch

import invsr
from benchmarks.arguments import parser, row, table, truths
from invsr.inspection.single_slices import LEAST_ALIKE_PACKAGES, are_alike, corrupt_slices, darker_slices
from invsr.inspection.slices import (
    LEAST_GAIN,
    LEAST_SHIFT,
    between,
    empty_slices,
    is_certain,
    package_gain,
    package_shift,
    shifted,
    spikes,
    without_spikes,
)

KINDS = ("spikes", "empty", "darker", "moved", "one darker", "swapped")


@dataclass
class Count:
    """Of one kind of fault over all cases."""

    there: int = 0
    found: int = 0
    right: int = 0


def injected(slices, generator):
    """The slices with faults, and what they are by kind."""
    bright = float(np.percentile(slices[slices > 0], 99.9))
    count, faults = slices.shape[2], {}
    odd = torch.arange(count) % 2 == 1
    if generator.random() < 1 / 3:
        pixels = generator.uniform(0.7, 3) * np.array([np.cos(angle := generator.uniform(0, 6.3)), np.sin(angle)])
        slices = shifted(slices, torch.tensor(pixels, dtype=slices.dtype)[:, None] * odd)
        faults["moved"] = pixels
    if generator.random() < 1 / 3:
        factor = 1 - generator.uniform(0.05, 0.3)
        slices = torch.where(odd if generator.random() < 0.5 else ~odd, factor * slices, slices)
        faults["darker"] = factor
    level = slices.flatten(0, 1).quantile(0.9, 0) if slices[..., 0].numel() < 10**5 else slices.amax((0, 1))
    inner = [k for k in np.flatnonzero(level > 0.4 * level.max()).tolist() if 2 < k < count - 3]
    if generator.random() < 1 / 3 and inner:
        k, factor = int(generator.choice(inner)), 1 - generator.uniform(0.25, 0.5)
        slices[..., k] *= factor
        faults["one darker"] = k, factor
    if generator.random() < 1 / 3 and inner:
        k = int(generator.choice(inner))
        other = k + count // 4 if k < count // 2 else k - count // 4
        if k not in faults.get("one darker", ()):
            slices[..., k] = slices[..., other]
            faults["swapped"] = [k]
    if generator.random() < 1 / 3 and len(inner) > 1:
        empty = sorted(generator.choice(inner, generator.integers(1, 3), replace=False).tolist())
        empty = [k for k in empty if k not in (faults.get("one darker", [-1])[0], *faults.get("swapped", []))]
        slices[..., empty] = 0.001 * bright * torch.rand(*slices.shape[:2], len(empty))
        faults |= {"empty": empty} if empty else {}
    if generator.random() < 1 / 3:
        where = {tuple(int(generator.integers(n)) for n in slices.shape) for _ in range(generator.integers(1, 6))}
        where = {one for one in where if one[2] not in faults.get("empty", [])}
        for one in where:
            slices[one] = bright * 10 ** generator.uniform(np.log10(3), 3)
        faults |= {"spikes": where} if where else {}
    return slices, faults


def found(slices):
    """Faults by kind, found one after the other as `invsr.pipeline.faults` does."""
    faults = {}
    spiked = spikes(slices)
    if spiked.any():
        faults["spikes"] = {tuple(one) for one in spiked.nonzero().tolist()}
        slices = without_spikes(slices, spiked)
    if empty := empty_slices(slices):
        faults["empty"] = empty
        slices = between(slices, empty)
    if not are_alike(slices, LEAST_ALIKE_PACKAGES):
        return faults
    if is_certain(shift := package_shift(slices), LEAST_SHIFT):
        faults["moved"] = np.array(shift.difference)
        slices = shifted(slices, -torch.tensor(shift.difference).to(slices)[:, None] * odd_ones(slices))
    if is_certain(gain := package_gain(slices, empty), LEAST_GAIN):
        faults["darker"] = float(np.exp(-abs(gain.difference[0])))
        dark = odd_ones(slices) == (gain.difference[0] < 0)
        slices = torch.where(dark, slices / faults["darker"], slices)
    if not are_alike(slices):
        return faults
    left_out = list(empty)
    if corrupt := [k for k in corrupt_slices(slices) if k not in empty]:
        faults["swapped"] = corrupt
        left_out = sorted({*corrupt, *empty})
        slices = between(slices, left_out)
    if darker := darker_slices(slices, left_out):
        faults["one darker"] = list(darker.items())
    return faults


def odd_ones(slices):
    return torch.arange(slices.shape[2]) % 2 == 1


def is_right(kind, one, true):
    if kind == "one darker":
        return len(one) == 1 and one[0][0] == true[0] and abs(one[0][1] - true[1]) < 0.1
    if kind == "moved":
        return float(np.abs(one - true).max()) < 0.5
    return abs(one - true) < 0.03 if kind == "darker" else one == true


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--seed")
    arguments.add_argument("--cases", type=int, default=200)
    options = arguments.parse_args()
    volumes, generator = truths(options.volumes, options.crop), np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    counts, clean = {kind: Count() for kind in KINDS}, [0, 0]
    for case in range(options.cases):
        volume, axis = volumes[case % len(volumes)], int(generator.integers(3))
        thickness = float(generator.integers(3, 7)) * float(volume.grid.spacing[axis])
        noise = float(generator.uniform(0.005, 0.03))
        scan = invsr.simulate(
            volume, slice_thickness=thickness, axis=axis, noise=noise, seed=case, noise_model="rician"
        )
        slices = scan.data[0, 0].movedim(axis, -1).contiguous()
        clean = [clean[0] + bool(found(slices)), clean[1] + 1]
        slices, there = injected(slices, generator)
        seen = found(slices)
        for kind, count in counts.items():
            count.there += kind in there
            count.found += kind in seen
            count.right += kind in seen and kind in there and is_right(kind, seen[kind], there[kind])
    print(f"scans without fault: a finding in {clean[0]} of {clean[1]}\n")
    table(["fault", "there", "found", "right", "recall", "precision"])
    for kind, one in counts.items():
        shares = [f"{one.right / max(number, 1):.0%}" for number in (one.there, one.found)]
        row([kind, one.there, one.found, one.right, *shares])


if __name__ == "__main__":
    main()
