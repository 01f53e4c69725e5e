"""Every command that writes, killed at random moments, on a full disk and with its folder gone.

`pytest tests/interrupted --kills 200` kills more often than the suite does; `-s` shows the table.
"""

import io
import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from invsr.io import save
from invsr.io.files import PART
from invsr.models.architectures import build
from invsr.models.weights import save_weights
from invsr.volume import Volume

pytest.importorskip("lightning_fabric")
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
CODES = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}
SIDE = 12
TRAIN = "--batch 1 --steps 6 --save-every 2 --rate 1e-3 --device cpu"
# Words of a command, and words of another run whose outputs are there before.
COMMANDS = {
    "reconstruct": (
        "reconstruct {data}/k.nii {data}/i.nii -o {out}/o.nii.gz --method tv --max-iter 4 --motion stack --uncertainty "
        "bootstrap --samples 2 --report {out}/report",
        "--lam 0.5",
    ),
    "simulate": ("simulate {data}/high/high.nii -o {out}/o.nii.gz --slice-thickness 3 --noise 0.01", "--seed 1"),
    "register": ("register {data}/k.nii {data}/i.nii -o {out}/motion.json", "--spacing 2"),
    "demo": ("demo --out {out}", "--slice-thickness 3"),
    "train denoiser": (
        f"train denoiser --data {{data}}/high --out {{out}}/w.safetensors --channels 2,4 --patch 8 {TRAIN}",
        "--seed 1",
    ),
    "train unrolled": (
        f"train unrolled --data {{data}}/high --out {{out}}/w.safetensors --start-from {{data}}/start.safetensors "
        f"--patch 8 --n-steps 2 --thickness 2 2 {TRAIN}",
        "--seed 1",
    ),
}
TRAININGS = [name for name in COMMANDS if name.startswith("train")]


class Commands:
    """The commands on small data, their outputs before and after, and the server that runs and kills them."""

    def __init__(self, home):
        self.home, self.out, self.data = home, home / "out", home / "data"
        (self.data / "high").mkdir(parents=True)
        rough = 100 + 800 * (np.indices((SIDE,) * 3).sum(0) % 8 > 3) + 20 * np.random.default_rng(0).random((SIDE,) * 3)
        for path, factors in (("high/high", (1, 1, 1)), ("k", (1, 1, 3)), ("i", (3, 1, 1))):
            i, j, k = (SIDE // factor for factor in factors)
            thick = rough.reshape(i, factors[0], j, factors[1], k, factors[2]).mean((1, 3, 5))
            save(Volume.from_array(np.float32(thick), factors), self.data / f"{path}.nii")
        save_weights(build("UNet", {"dim": 3, "channels": [2, 4]}), self.data / "start.safetensors", {})
        self.server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("forkserver.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.known = {}

    def run(self, name, *more, **how):
        words = COMMANDS[name][0].format(data=self.data, out=self.out).split()
        request = {"words": [*words, *more], "folder": str(self.out)} | how
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def begin(self, name):
        """The folder as it is before the command: with an older run's outputs (of a training, no checkpoint)."""
        before = self.known[name]["before"]
        shutil.rmtree(self.out, ignore_errors=True)
        for path, content in before.items():
            (self.out / path).parent.mkdir(parents=True, exist_ok=True)
            (self.out / path).write_bytes(content)
        return before

    def learn(self, name):
        """Outputs of the older run and of the command when it is not stopped; its seconds, its events of writing."""
        if name in self.known:
            return self.known[name]
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        done = self.run(name, *COMMANDS[name][1].split())
        assert done["code"] == 0, done
        before = contents(self.out)
        self.known[name] = {"before": {path: one for path, one in before.items() if not path.endswith(".ckpt")}}
        self.begin(name)
        done = self.run(name)
        assert done["code"] == 0 and done["events"] > 2, done
        self.known[name] |= {"after": contents(self.out)} | {key: done[key] for key in ("seconds", "events")}
        return self.known[name]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    found = Commands(tmp_path_factory.mktemp("interrupted"))
    yield found
    found.server.stdin.close()
    found.server.wait()


def one_line(text):
    lines = [line for line in text.splitlines() if not line.startswith(("invsr: note: ", "invsr: warning: "))]
    return len(lines) == 1 and lines[0].startswith("invsr: error: ")


def require_whole(commands, name, parts_may_stay):
    """Each file is the older one or a whole new one; of others, at most hidden parts are there."""
    known = commands.known[name]
    for path, content in contents(commands.out).items():
        if PART.fullmatch(Path(path).name):
            assert parts_may_stay, path
        elif path.endswith((".safetensors", ".ckpt", ".csv")):
            continue  # of each save: the run that goes on from it shows that it is whole
        else:
            assert content in (known["before"].get(path), known["after"].get(path)), path
    assert {path for path in known["before"] if not (commands.out / path).exists()} == set()


def require_same_end(commands, name):
    """Weights and log bit for bit as of a training that was not stopped, and in the checkpoint the same numbers."""
    found, expected = contents(commands.out), dict(commands.known[name]["after"])
    one, other = (torch.load(io.BytesIO(files.pop("w.ckpt")), weights_only=True) for files in (found, expected))
    assert found == expected
    assert same(one, other)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def moment(draw, known):
    """One time in three at any moment; else at one of writing, or shortly after it."""
    if draw.random() < 1 / 3:
        return {"seconds": draw.uniform(0, known["seconds"])}
    event = {"event": draw.randint(1, known["events"])}
    return event if draw.random() < 0.5 else event | {"pause": draw.choice([0.0, draw.expovariate(200)])}


def kill(commands, name, number, draw):
    known = commands.learn(name)
    commands.begin(name)
    how = moment(draw, known)
    done = commands.run(name, signal=number, **how)
    case = (name, number, how, done)
    if done["code"] == 0:
        assert contents(commands.out) == known["after"], case
        return "finished first"
    if done["code"] == -number and number != signal.SIGKILL:
        assert not done["err"] and contents(commands.out) in (known["before"], known["after"]), case
        return "before the start or after the end"
    assert done["code"] == CODES[number], case
    if number != signal.SIGKILL:
        assert one_line(done["err"]) and "interrupted" in done["err"], case
    require_whole(commands, name, parts_may_stay=number == signal.SIGKILL)
    left = sum(bool(PART.fullmatch(Path(path).name)) for path in contents(commands.out))
    if name in TRAININGS:
        for path in commands.out.rglob(".invsr-*"):
            path.unlink()
        again = commands.run(name)
        assert again["code"] == 0, (*case, again)
        require_same_end(commands, name)
        return f"continued to the same bytes{', hidden part left' * left}"
    return f"older or whole files{', hidden part left' * left}"


def test_killed_at_random_moments(commands, request):
    cases = itertools.cycle([(name, number) for number in SIGNALS for name in COMMANDS])
    kills = request.config.getoption("--kills")
    draw, table = random.Random(kills), Counter()
    for name, number in itertools.islice(cases, kills):
        table[name, number.name, kill(commands, name, number, draw)] += 1
    assert sum(table.values()) == kills
    assert any(outcome != "finished first" for _, _, outcome in table)
    for (name, number, outcome), count in sorted(table.items()):
        sys.stdout.write(f"| {name} | {number} | {outcome} | {count} |\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_on_a_full_disk(commands, name):
    known = commands.learn(name)
    commands.begin(name)
    largest = max(map(len, known["after"].values()))
    done = commands.run(name, limit=largest - 1)
    assert done["code"] == 1 and one_line(done["err"]) and "could not be written (File too large)" in done["err"], done
    require_whole(commands, name, parts_may_stay=False)
    if name in TRAININGS:
        assert commands.run(name)["code"] == 0
        require_same_end(commands, name)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_folder_vanishes(commands, name, request):
    known = commands.learn(name)
    draw = random.Random(name)
    gone = commands.home / "gone"
    for _ in range(1 + request.config.getoption("--kills") // 50):
        event = draw.randint(1, known["events"] - 2)  # the last two: the part takes its name and is looked for
        before = commands.begin(name)
        done = commands.run(name, event=event, vanish=str(gone))
        assert done["code"] == 1 and one_line(done["err"]), (event, done)
        assert "(No such file or directory)" in done["err"] or "does not exist" in done["err"], (event, done)
        assert not commands.out.exists() or not contents(commands.out), event
        shutil.rmtree(commands.out, ignore_errors=True)
        gone.rename(commands.out)
        require_whole(commands, name, parts_may_stay=True)
        assert before.keys() <= contents(commands.out).keys()
