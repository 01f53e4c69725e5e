"""Options, volumes and tables that the benchmarks share."""

import argparse
from pathlib import Path

import numpy as np

import invsr
from invsr.examples import crop, example
from invsr.numerics.levels import PERCENTILE

OPTIONS = {
    "volumes": {"nargs": "*", "metavar": "HIGH.nii.gz", "help": "taken for the truth, isotropic [the example head]"},
    "--crop": {"type": int, "metavar": "SIDE", "help": "use the central cube of this side, voxels"},
    "--thickness": {"type": float, "default": 4.0, "help": "of the simulated slices, mm"},
    "--noise": {"type": float, "default": 0.01, "help": "standard deviation as a share of the peak"},
    "--seed": {"type": int, "default": 0, "help": "of everything random"},
    "--out": {"type": Path, "help": "file or folder to write to"},
}


def parser(doc, *names, **defaults):
    """A parser described by a script's docstring, with the named options of `OPTIONS`."""
    found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in names:
        found.add_argument(name, **OPTIONS[name])
    found.set_defaults(**defaults)
    return found


def truths(paths, side=None):
    """The volumes at `paths`, or the example head; of each the central cube of `side` voxels if it is given."""
    volumes = [invsr.load(path) for path in paths] or [example()]
    return volumes if side is None else [crop(volume, side) for volume in volumes]


def normalised(volume):
    """The volume with a peak of 1."""
    return volume.with_data(volume.data / float(np.percentile(volume.numpy(), PERCENTILE)))


def stem(volume):
    """The file's name without endings, for tables."""
    return volume.name.split(".")[0]


def table(columns):
    """Print the head of a Markdown table."""
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)


def row(cells):
    """Print a row of a Markdown table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
