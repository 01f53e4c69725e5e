"""Write a BIDS dataset of simulated thick-slice scans, with the oddities that real ones have.

    python -m benchmarks.cohort.dataset --into DATASET [HIGH.nii.gz ...] [--subjects 24] [--crop SIDE]
                                        [--noise 0.01] [--seed 0] [--plain]

Participants get a FLAIR or T2w scan of one of the volumes, or of a phantom of random shapes for every third of them,
with slices of 3 to 6 mm; sidecars with a thickness for some, one sidecar at the root for all FLAIR scans. By number: 2
has two sessions, 3 an axial and a sagittal stack, 4 two runs of one stack, 5 a T2w and a FLAIR, 6 a file that is cut
short, 7 a 4-D file, 8 isotropic voxels, 9 a magnitude and a phase, 10 an image that is not of the chosen suffixes.
With --plain there is nothing odd: each participant has one scan of one of the volumes.
"""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

import invsr
from benchmarks.arguments import parser, stem, truths
from invsr.testing.phantoms import centred_grid, shapes
from invsr.volume import Volume

THICKNESSES = (3.0, 4.0, 5.0, 6.0)


def write_dataset(root, volumes, subjects=24, noise=0.01, seed=0, side=48, plain=False):
    """Write the dataset; phantoms have `side` voxels along each axis; `plain` has neither phantoms nor oddities."""
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / "dataset_description.json", {"Name": "Simulated thick slices", "BIDSVersion": "1.10.0"})
    (root / "README").write_text("Thick-slice scans, simulated from high-resolution volumes and phantoms.\n")
    write_json(root / "FLAIR.json", {"MagneticFieldStrength": 3, "SliceEncodingDirection": "k"})
    for number in range(1, subjects + 1):
        write_subject(root / f"sub-{number:02d}", number, volumes, noise, seed + 100 * number, side, plain)


def write_subject(folder, number, volumes, noise, seed, side, plain):
    """Write the scans of one participant."""
    grid = centred_grid((side,) * 3)
    phantom = number % 3 == 0 and not plain
    truth = Volume(shapes(grid, seed=seed), grid) if phantom else volumes[number % len(volumes)]
    thick = THICKNESSES[number % len(THICKNESSES)]
    suffix = "FLAIR" if number % 2 else "T2w"
    told = {} if number % 4 == 0 else {"SliceThickness": thick}
    label = folder.name

    def scan(name, place=folder / "anat", axis=2, more=0, thickness=thick, values=told):
        low = invsr.simulate(truth, slice_thickness=thickness, axis=axis, noise=noise, seed=seed + more)
        place.mkdir(parents=True, exist_ok=True)
        invsr.save(low, place / f"{name}.nii.gz")
        write_json(place / f"{name}.json", values)
        return place / f"{name}.nii.gz"

    if plain:
        scan(f"{label}_{suffix}")
    elif number == 2:
        for session in ("1", "2"):
            scan(f"{label}_ses-{session}_{suffix}", folder / f"ses-{session}" / "anat", more=int(session))
    elif number == 3:
        scan(f"{label}_acq-axial_{suffix}")
        scan(f"{label}_acq-sagittal_{suffix}", axis=0, more=1, values=told | {"SliceEncodingDirection": "i"})
    elif number == 4:
        scan(f"{label}_run-1_{suffix}")
        scan(f"{label}_run-2_{suffix}", more=1)
    elif number == 5:
        scan(f"{label}_FLAIR")
        scan(f"{label}_T2w", axis=1, more=1, values=told | {"SliceEncodingDirection": "j"})
    elif number == 8:
        scan(f"{label}_{suffix}", thickness=float(truth.grid.spacing[2]), values={})
    else:
        path = scan(f"{label}_{suffix}")
        if number == 6:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif number == 7:
            image = nib.load(path)
            data = np.repeat(np.asarray(image.dataobj)[..., None], 2, 3)
            nib.save(nib.Nifti1Image(data, image.affine), path)
        elif number == 9:
            scan(f"{label}_part-phase_{suffix}", values={**told, "Units": "rad"})
        elif number == 10:
            scan(f"{label}_UNIT1", values={})


def write_json(path, entries):
    path.write_text(json.dumps(entries, indent=2) + "\n")


def main():
    options = parser(__doc__, "volumes", "--crop", "--noise", "--seed")
    options.add_argument("--subjects", type=int, default=24)
    options.add_argument("--into", type=Path, required=True, help="folder of the dataset")
    options.add_argument("--plain", action="store_true", help="nothing odd")
    args = options.parse_args()
    volumes = truths(args.volumes, args.crop)
    write_dataset(args.into, volumes, args.subjects, args.noise, args.seed, plain=args.plain)
    print(f"{args.into}: {args.subjects} participants, from {', '.join(map(stem, volumes))}")


if __name__ == "__main__":
    main()
