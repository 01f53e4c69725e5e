"""Put trained weights into the package: the file, its entry in models.json, its card.

    python -m benchmarks.release.ship NAME WEIGHTS.safetensors "What it is for" [--kind unrolled]
                                      [--before TEXT] [--figures TABLE.md ...]

The card's facts come from the weights file, its figures from tables that other benchmarks printed: a table's columns
that are named like another model are left out.
"""

import hashlib
import json
import shutil
from pathlib import Path

from benchmarks.arguments import parser
from invsr.models.registry import ROOM
from invsr.models.weights import load_weights
from invsr.solvers.trained import load_solver

CARD = """# {name}

{purpose}

| | |
|---|---|
{facts}
| Licence | MIT |

## Data

Label maps: SynthSeg's and SynthSR's training sets (github.com/BBillot, Apache-2.0), 25 heads and brains, drawn in
random contrasts. Volumes: a child's T1w head (FNNDSC/SAG-anon, MIT) and an adult's (neurolabusc/VolumeRenderingData,
MIT), in random contrasts too. Nothing else.

The recipe as a command: `{command}`

## Figures

{figures}

## Limits

- Heads at about 1 mm. Other anatomy and other voxel sizes are treated by the same rules, unmeasured.
- Two real people and 25 label maps are few: a rare structure may be smoothed away. Compare with `--method tv`.
- {beyond}
- For research. Not for diagnosis.
"""
BEYOND = {
    "denoiser": "Noise above the range, and noise that is not white (parallel imaging's, motion's), is not what it was "
    "trained for.",
    "unrolled": "Slices, gaps and noise outside the ranges get a warning: `--method pnp` is trained for no "
    "acquisition. Motion, and noise that is not white, get none.",
    "deq": "Slices, gaps and noise outside the ranges get a warning: `--method pnp` is trained for no "
    "acquisition. Motion, and noise that is not white, get none.",
}


def facts(kind, network, about, before, parameters):
    """The rows of the card's first table."""
    recipe = about["recipe"]
    inner = about["config"].get("network", about["config"])
    patch = "x".join(map(str, recipe["patch"]))
    rows = {
        "Network": about["architecture"] + ", " + ", ".join(f"{key} {value}" for key, value in inner.items()),
        "Parameters": f"{parameters:,}",
        "Multiply-adds per voxel": f"{about['multiply_adds']:,}",
        "Noise range": f"{about['sigma'][0]:.1%} to {about['sigma'][1]:.0%} of the peak",
        "Trained on": f"{about['data']} (below)",
    }
    if kind == "denoiser":
        measured = f"; {recipe['measured']:.0%} of the patches measured in slices 2 to 8 voxels thick and brought back"
        rows["Errors seen"] = "white noise" + (measured if recipe["measured"] else " alone")
    else:
        low, high = about["thickness"]
        steps = f"up to {recipe['n_steps']}, the fixed point" if kind == "deq" else str(recipe["n_steps"])
        rows["Steps"] = f"{steps} of {recipe['step']}, loss {recipe['loss']}"
        rows["Acquisitions"] = f"slices {low:g} to {high:g} voxels thick, gaps up to {about['gap']:.0%}, all profiles"
    rows["Optimisation"] = (
        f"{about['steps']:,} steps of {recipe['batch']} patches of {patch} voxels, Muon, "
        f"largest rate {recipe['rate']:g}, seed {recipe['seed']}"
    )
    rows["Before that"] = before
    return "\n".join(f"| {key} | {value} |" for key, value in rows.items())


def command(kind, about):
    """The command that trains by the same recipe."""
    recipe = about["recipe"]
    inner = about["config"].get("network", about["config"])
    shared = f"--steps {recipe['steps']} --batch {recipe['batch']} --rate {recipe['rate']} --seed {recipe['seed']}"
    if kind == "denoiser":
        return (
            f"invsr train denoiser --data DIR --out W.safetensors --architecture {about['architecture']} "
            f"--dim {inner['dim']} --channels '{' '.join(map(str, inner['channels']))}' "
            f"--patch {recipe['patch'][0]} --measured {recipe['measured']} {shared}"
        )
    return (
        f"invsr train {kind} --data DIR --out W.safetensors --start-from DENOISER --step {recipe['step']} "
        f"--{'max-iter' if kind == 'deq' else 'n-steps'} {recipe['n_steps']} --loss '{recipe['loss']}' {shared}"
    )


def figures(path, name, names):
    """Markdown tables without the columns of other models."""
    out, keep = [], None
    for line in Path(path).read_text().splitlines():
        if not line.startswith("|"):
            out.append(line)
            keep = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if keep is None:  # a table's header; a column of eight turns, "NAME x 8", belongs to its model
            owners = [cell.split(" x ")[0] for cell in cells]
            keep = [n for n, owner in enumerate(owners) if owner == name or owner not in names]
        out.append("| " + " | ".join(cells[n] for n in keep) + " |")
    return "\n".join(out)


def main():
    arguments = parser(__doc__)
    arguments.add_argument("name")
    arguments.add_argument("weights", type=Path)
    arguments.add_argument("purpose")
    arguments.add_argument("--kind", default="denoiser", choices=list(BEYOND))
    arguments.add_argument("--before", default="nothing: from random weights", help="how the first weights were made")
    arguments.add_argument("--figures", nargs="*", default=[])
    options = arguments.parse_args()
    kind = options.kind
    network, about = load_weights(options.weights) if kind == "denoiser" else load_solver(options.weights, kind)
    ROOM.mkdir(exist_ok=True)
    there = ROOM / "models.json"
    listed = json.loads(there.read_text()) if there.exists() else {}
    target = ROOM / f"{options.name}.safetensors"
    if options.weights.resolve() != target.resolve():
        shutil.copyfile(options.weights, target)
    parameters = sum(one.numel() for one in network.parameters())
    listed[options.name] = {
        "file": target.name,
        "kind": kind,
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "for": options.purpose,
        "parameters": parameters,
        "sigma": about["sigma"],
    }
    there.write_text(json.dumps(listed, indent=2) + "\n")
    tables = [figures(path, options.name, set(listed)) for path in options.figures]
    card = CARD.format(
        name=options.name,
        purpose=options.purpose,
        beyond=BEYOND[kind],
        command=command(kind, about),
        facts=facts(kind, network, about, options.before, parameters),
        figures="\n\n".join(tables) or "None yet.",
    )
    (ROOM / f"{options.name}.md").write_text(card)
    print(f"{options.name}: {parameters:,} parameters, {target.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
