"""Same seed, same bytes in every file: each method and command, in two processes; another seed, other bytes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from invsr.io import save
from invsr.models.architectures import build
from invsr.models.weights import save_weights
from invsr.volume import Volume

SIDE = 12
PNP = "reconstruct k.nii --method pnp --denoiser mri-denoiser-fast --max-iter 2"
TRAIN = "--data high --patch 8 --batch 2 --steps 2 --device cpu"
# The first words name the case; each draws from the seed, or not.
DRAWN = {
    "pnp": f"{PNP} -o OUT/o.nii.gz",
    "pnp hqs": f"{PNP} -o OUT/o.nii.gz --solver hqs",
    "pnp pgd": f"{PNP} -o OUT/o.nii.gz --solver pgd",
    "pnp red": f"{PNP} -o OUT/o.nii.gz --solver red",
    "posterior": "reconstruct k.nii --method posterior --denoiser mri-denoiser-fast --samples 2 -o OUT/o.nii.gz",
    "bootstrap": "reconstruct k.nii --method tv --max-iter 3 --uncertainty bootstrap --samples 2 -o OUT/o.nii.gz",
    "simulate": "simulate high/high.nii --slice-thickness 3 --noise 0.01 -o OUT/o.nii.gz",
    "train denoiser": f"train denoiser {TRAIN} --channels 2,4 --out OUT/w.safetensors",
    "train unrolled": f"train unrolled {TRAIN} --start-from start.safetensors --n-steps 2 --out OUT/w.safetensors "
    "--thickness 2 2",
}
FIXED = {
    "cubic": "reconstruct k.nii --method cubic -o OUT/o.nii.gz",
    "tikhonov": "reconstruct k.nii --method tikhonov -o OUT/o.nii.gz",
    "tv": "reconstruct k.nii --method tv -o OUT/o.nii.gz",
    "unrolled": "reconstruct k.nii --method unrolled -o OUT/o.nii.gz",
    "deq": "reconstruct k.nii --method deq -o OUT/o.nii.gz",
    "report and motion": "reconstruct k.nii i.nii --method tikhonov --motion stack --report OUT/report -o OUT/o.nii.gz",
    "register": "register k.nii i.nii -o OUT/motion.json",
}
# Runs commands, given as JSON, one after another in one process.
RUN_ALL = """
import json, sys
from invsr.app.command_line import main
for words in json.load(sys.stdin):
    sys.argv = ["invsr", *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    found = tmp_path_factory.mktemp("data")
    (found / "high").mkdir()
    rough = 100 + 800 * (np.indices((SIDE,) * 3).sum(0) % 8 > 3) + 20 * np.random.default_rng(0).random((SIDE,) * 3)
    for path, factors in (("high/high", (1, 1, 1)), ("k", (1, 1, 3)), ("i", (3, 1, 1))):
        i, j, k = (SIDE // factor for factor in factors)
        thick = rough.reshape(i, factors[0], j, factors[1], k, factors[2]).mean((1, 3, 5))
        save(Volume.from_array(np.float32(thick), factors), found / f"{path}.nii")
    save_weights(build("UNet", {"dim": 3, "channels": [2, 4]}), found / "start.safetensors", {})
    return found


@pytest.fixture(scope="module")
def outputs(home):
    """The files of every case: of two processes with one seed, and of another seed, by the second of them."""

    def run(name, hash_seed, cases):
        words = []
        for number, text in enumerate(cases.values()):
            # The same names, and so the same command in the report: the process has a folder of its own.
            (home / name / str(number)).mkdir(parents=True)
            words.append(text.replace("OUT", str(number)).split())
        for one in ("high", "k.nii", "i.nii", "start.safetensors"):
            (home / name / one).symlink_to(home / one)
        done = subprocess.run(
            [sys.executable, "-c", RUN_ALL],
            input=json.dumps(words),
            cwd=home / name,
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return {case: contents(home / name / str(number)) for number, case in enumerate(cases)}

    everything, reseeded = FIXED | DRAWN, {f"{case}, other": f"{text} --seed 7" for case, text in DRAWN.items()}
    one, same = run("one", "1", everything), run("same", "2", everything | reseeded)
    return one, same, {case: same[f"{case}, other"] for case in DRAWN}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", FIXED | DRAWN)
def test_same_seed_same_bytes(outputs, case):
    one, same, _ = (run.get(case) for run in outputs)
    assert one and one.keys() == same.keys()
    assert [name for name in one if one[name] != same[name]] == []


@pytest.mark.parametrize("case", DRAWN)
def test_another_seed_other_bytes(outputs, case):
    one, _, other = (run[case] for run in outputs)
    # The mean of a bootstrap is the method's own result, which draws nothing.
    drawn = [name for name in one if case != "bootstrap" or "std" in name]
    assert drawn and all(one[name] != other[name] for name in drawn)
