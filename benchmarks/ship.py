"""Put trained weights into the package: the file, its entry in models.json, its card.

    python benchmarks/ship.py NAME WEIGHTS.safetensors "What it is for" [--before TEXT]
                              [--figures TABLE.md ...]

The card's facts come from the weights file, its figures from tables that other benchmarks printed: a table's columns
that are named like another model are left out.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

from invsr.priors.pretrained import ROOM, load_weights

CARD = """# {name}

{purpose}

| | |
|---|---|
| Network | {architecture}, {config} |
| Parameters | {parameters:,} |
| Multiply-adds per voxel | {multiply_adds:,} |
| Noise range | {low:.1%} to {high:.0%} of the peak |
| Trained on | {data} (below) |
| Errors seen | white noise; {measured:.0%} of the patches measured in slices 2 to 8 voxels thick and brought back |
| Optimisation | {steps:,} steps of {batch} patches of {patch} voxels, Muon, largest rate {rate:g}, seed {seed} |
| Before that | {before} |
| Licence | MIT |

## Data

Label maps: SynthSeg's and SynthSR's training sets (github.com/BBillot, Apache-2.0), 25 heads and brains, drawn in
random contrasts. Volumes: a child's T1w head (FNNDSC/SAG-anon, MIT) and an adult's (neurolabusc/VolumeRenderingData,
MIT), in random contrasts too. Nothing else.

The recipe as a command (schedules of these weights were shortened under way, so a new run will differ a little):
`{command}`

## Figures

{figures}

## Limits

- Heads at about 1 mm. Other anatomy and other voxel sizes are denoised by the same rules, unmeasured.
- Two real people and 25 label maps are few: a rare structure may be smoothed away. Compare with `--method tv`.
- Noise above the range, and noise that is not white (parallel imaging's, motion's), is not what it was trained for.
- For research. Not for diagnosis.
"""


def figures(path, name, names):
    """A Markdown table without the columns of other models."""
    lines = Path(path).read_text().splitlines()
    out = []
    header = next(line for line in lines if line.startswith("|"))
    cells = [cell.strip() for cell in header.strip("|").split("|")]
    keep = [n for n, cell in enumerate(cells) if cell == name or cell not in names]
    for line in lines:
        if not line.startswith("|"):
            out.append(line)
            continue
        row = [cell.strip() for cell in line.strip("|").split("|")]
        out.append("| " + " | ".join(row[n] for n in keep) + " |")
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("weights", type=Path)
    parser.add_argument("purpose")
    parser.add_argument("--before", default="nothing: from random weights", help="how the first weights were made")
    parser.add_argument("--figures", nargs="*", default=[])
    options = parser.parse_args()
    network, about = load_weights(options.weights)
    ROOM.mkdir(exist_ok=True)
    there = ROOM / "models.json"
    listed = json.loads(there.read_text()) if there.exists() else {}
    target = ROOM / f"{options.name}.safetensors"
    if options.weights.resolve() != target.resolve():
        shutil.copyfile(options.weights, target)
    parameters = sum(one.numel() for one in network.parameters())
    listed[options.name] = {
        "file": target.name,
        "kind": "denoiser",
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "for": options.purpose,
        "parameters": parameters,
        "sigma": about["sigma"],
    }
    there.write_text(json.dumps(listed, indent=2) + "\n")
    recipe = about["recipe"]
    patch = "x".join(map(str, recipe["patch"]))
    inner = about["config"].get("network", about["config"])
    command = (
        f"invsr train denoiser --data DIR --out W.safetensors --architecture {about['architecture']} "
        f"--dim {inner['dim']} --channels {' '.join(map(str, inner['channels']))} --steps {recipe['steps']} "
        f"--batch {recipe['batch']} --patch {recipe['patch'][0]} --measured {recipe['measured']} "
        f"--rate {recipe['rate']} --seed {recipe['seed']}"
    )
    card = CARD.format(
        name=options.name, purpose=options.purpose, architecture=about["architecture"],
        config=", ".join(f"{key} {value}" for key, value in inner.items()), parameters=parameters,
        multiply_adds=about["multiply_adds"], low=about["sigma"][0], high=about["sigma"][1], data=about["data"],
        measured=recipe["measured"], steps=about["steps"], batch=recipe["batch"], patch=patch, rate=recipe["rate"],
        seed=recipe["seed"], command=command, before=options.before,
        figures="\n\n".join(figures(path, options.name, set(listed)) for path in options.figures) or "None yet.",
    )  # fmt: skip
    (ROOM / f"{options.name}.md").write_text(card)
    print(f"{options.name}: {parameters:,} parameters, {target.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
