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
from invsr.training.acquisitions import side_of_cube
from invsr.training.kspace import FASTEST, LINES, MOST_COILS, ONE_COIL, PARTIAL, SCATTERED, SHARES, TRUNCATED
from invsr.uncertainty.predicted import read_deviation

CARD = """# {name}

{purpose}

| | |
|---|---|
{facts}
| Licence | MIT |

## Data

Label maps: the training sets of SynthSeg and SynthSR (github.com/BBillot, Apache-2.0), 25 heads and brains, rendered
with random contrasts. Volumes, also with random contrasts: T1w heads of a child (FNNDSC/SAG-anon, MIT), of adults
(neurolabusc/VolumeRenderingData, MIT; datalad/example-dicom-structural, PDDL; two of neurolabusc/dcm_qa_uih, BSD-2;
pycortex, BSD-2) and a T1w brain (rordenlab/niimath-bitmap, CC0); a T2w head and a T2w brain after a stroke
(neurolabusc/T2lesion, MIT; rordenlab/niimath-bitmap, CC0); two FLAIR brains with multiple sclerosis
(muschellij2/open_ms_data, CC-BY; Lesjak et al. 2018, Neuroinformatics 16, 51-63); a lumbar spine
(spinalcordtoolbox/sct_tutorial_data, MIT); a melon (neurolabusc/dcm_qa_deident, BSD-2). Lesion masks of 50 people after
a stroke (neurolabusc/StrokeOutcomeOptimizationProjectDemo, BSD-2) and of two of the volumes. No other data.

The same training as a command: `{command}`

## Figures

{figures}

## Limits

- Trained on heads, a spine and a melon with voxels of 0.6 to 1.3 mm. Performance on other anatomy and other voxel sizes
  has not been measured.
- {data} are few: a rare structure may be smoothed away. Compare with `--method tv`.
- {beyond}
- For research. Not for diagnosis.
"""
OUTSIDE = (
    "Slices, gaps and noise outside these ranges cause a warning; the denoiser of `--method pnp` does not depend on "
    "the acquisition. There is no\n  warning for motion, or for noise that is not white."
)
KSPACE = (
    f"k-space of images with smooth phase, by one coil ({ONE_COIL:.0%}) or up to {MOST_COILS}: samples scattered along "
    f"two axes, up to {FASTEST[SCATTERED][1]:g}-fold ({SHARES[SCATTERED]:.0%}), lines left out along one, up to "
    f"{FASTEST[LINES][1]:g}-fold ({SHARES[LINES]:.0%}), partial Fourier ({SHARES[PARTIAL]:.0%}), k-space that "
    f"ends early ({SHARES[TRUNCATED]:.0%})"
)
BEYOND = {
    "denoiser": "It was not trained for noise above the range, or for noise that is not white (from parallel imaging "
    "or motion).",
    "unrolled": OUTSIDE,
    "deq": OUTSIDE,
    "deviation": "Its factors were set on four heads, with Gaussian slices of 2 to 12 voxels and 0.5 to 3 % noise. "
    "Reports do not ask it outside the\n  solver's ranges. It knows nothing of motion, or of a slice thickness that is "
    "wrong.",
}
BEYOND_KSPACE = (
    "More noise than that, and slices thicker than voxels, cause a warning. It has not seen radial or spiral k-space, "
    "nor errors in\n  coil maps. Where samples are scattered along two axes `--method pnp` may score higher."
)


def facts(kind, network, about, before, parameters):
    """The rows of the card's first table."""
    recipe = about["recipe"]
    inner = about["config"].get("network", about["config"])
    patch = "x".join(map(str, recipe.get("patch", (recipe.get("side"),) * 3)))
    rows = {
        "Network": about["architecture"] + ", " + ", ".join(f"{key} {value}" for key, value in inner.items()),
        "Parameters": f"{parameters:,}",
        "Multiply-adds per voxel": f"{about['multiply_adds']:,}",
        "Noise range": f"{about['sigma'][0]:.1%} to {about['sigma'][1]:.0%} of the peak",
        "Trained on": f"{about['data']} (below)",
    }
    if kind == "denoiser":
        share = f"{recipe['measured']:.0%} of the patches"
        measured = f"; {share} are simulated scans with slices of 2 to 8 voxels, brought back to the fine grid"
        rows["Errors in training"] = "white noise" + (measured if recipe["measured"] else " only")
    elif kind == "deviation":
        rows["Errors in training"] = f"{recipe['draws']} reconstructions by {about['solver']}, of its acquisitions"
    else:
        low, high = about["thickness"]
        steps = str(recipe["n_steps"])
        if kind == "deq":
            ending = about["driver"].get("n_ending", 0)
            steps = f"up to {steps}, to the fixed point" + (f", and {ending} after it" if ending else "") + ","
        rows["Steps"] = f"{steps} of {recipe['step']}, loss {recipe['loss']}"
        rows["Acquisitions"] = f"slices {low:g} to {high:g} voxels thick, gaps up to {about['gap']:.0%}, all profiles"
        if about.get("kspace") == 1:
            rows["Acquisitions"] = KSPACE
        if about.get("thin"):
            rows["Acquisitions"] += f"; {about['thin']:.0%} have slices thinner by a factor of up to 10"
        if about.get("stacks"):
            rows["Acquisitions"] += (
                f"; {about['stacks']:.0%} are two or three stacks of one volume, {about['oblique']:.0%} of those "
                "turned by up to 30 degrees"
            )
        if about.get("contrasts"):
            rows["Acquisitions"] += (
                f"; one to {about['contrasts']} contrasts of one head, one scan each; in a third of them all slices "
                "are parallel, in a fifth one contrast is isotropic"
            )
    if recipe.get("contrasts", 1) > 1:
        patch = "x".join([str(side_of_cube(recipe["patch"]))] * 3)
    rows["Optimisation"] = (
        f"{about['steps']:,} steps of {recipe['batch']} patches of {patch} voxels, Muon, "
        f"largest rate {recipe['rate']:g}, seed {recipe['seed']}"
    )
    rows["Initial weights"] = before
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
    if kind == "deviation":
        return (
            f"invsr train deviation --data DIR --out W.safetensors --solver {recipe['solver']} "
            f"--draws {recipe['draws']} --side {recipe['side']} "
            f"--channels '{' '.join(map(str, recipe['channels']))}' {shared}"
        )
    low, high = recipe["thickness"]
    ranges = f"--thickness {low:g} {high:g} --gap {recipe['gap']:g} --noise-range {' '.join(map(str, recipe['noise']))}"
    if recipe.get("thin"):
        ranges += f" --thin {recipe['thin']:g}"
    if recipe.get("stacks"):
        ranges += f" --stacks {recipe['stacks']:g} --oblique {recipe['oblique']:g}"
    if recipe.get("kspace"):
        sides = " ".join(f"--patch {side}" for side in recipe["patch"])
        ranges = f"--kspace {recipe['kspace']:g} {sides} --noise-range {' '.join(map(str, recipe['noise']))}"
    if recipe.get("contrasts", 1) > 1:
        ranges += f" --contrasts {recipe['contrasts']}"
    steps = f"--{'max-iter' if kind == 'deq' else 'n-steps'} {recipe['n_steps']}"
    return (
        f"invsr train {kind} --data DIR --out W.safetensors --start-from START --step {recipe['step']} {steps} "
        f"--loss '{recipe['loss']}' {ranges} {shared}"
    )


def figures(path, name, names):
    """Markdown tables without the columns of other models."""
    out, keep = [], None
    for line in Path(path).read_text().splitlines():
        if line.startswith("# "):  # the page's title
            continue
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


def loaded(weights, kind):
    """What a weights file holds, and its description."""
    if kind == "deviation":
        found = read_deviation(weights)
        return found.network, found.about
    return load_weights(weights) if kind == "denoiser" else load_solver(weights, kind)


def main():
    arguments = parser(__doc__)
    arguments.add_argument("name")
    arguments.add_argument("weights", type=Path)
    arguments.add_argument("purpose")
    arguments.add_argument("--kind", default="denoiser", choices=list(BEYOND))
    arguments.add_argument("--before", default="random", help="how they were made")
    arguments.add_argument("--figures", nargs="*", default=[])
    options = arguments.parse_args()
    kind = options.kind
    network, about = loaded(options.weights, kind)
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
        data=about["data"].replace(", ", " and "),
        beyond=BEYOND_KSPACE if about.get("kspace") == 1 else BEYOND[kind],
        command=command(kind, about),
        facts=facts(kind, network, about, options.before, parameters),
        figures="\n\n".join(tables) or "None yet.",
    )
    (ROOM / f"{options.name}.md").write_text(card)
    print(f"{options.name}: {parameters:,} parameters, {target.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
