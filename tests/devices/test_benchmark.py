"""benchmarks/gpu.py is ready for a GPU: it runs on the pretended one, and needs nothing that a GPU machine may lack."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from invsr.models.networks import UNet
from invsr.priors import Denoiser

ROOT = Path(__file__).parent.parent.parent
LACKING = ["nibabel", "deepinv", "nrrd", "typer", "rich", "skimage", "torchmetrics", "matplotlib", "sigpy"]
REFUSING = """
import sys

class Refuse:
    def find_spec(self, name, *others):
        if name.split(".")[0] in sys.argv:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import torch
from benchmarks import gpu
print(tuple(gpu.run(gpu.scan_of(8), "tikhonov", torch.device("cpu")).x.shape))
"""


def test_it_needs_few_packages():
    done = subprocess.run([sys.executable, "-c", REFUSING, *LACKING], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(1, 1, 8, 8, 8)"


def call(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["gpu", *words])
    gpu.main()
    return capsys.readouterr().out


def test_rows_for_each_method_size_and_format(cuda, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "REPEATS", 1)
    monkeypatch.setattr(gpu, "pretrained", lambda name: Denoiser(UNet(3, (4, 6), blocks=1)))
    sizes = ["--sides", "12", "8", "--pass-side", "8", "--product-side", "8", "--compare", "8"]
    out = call(monkeypatch, capsys, *sizes, "--methods", "tikhonov", "cubic")
    lines = [line.strip("|").split("|") for line in out.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in cells] for cells in lines]
    assert [(cells[0], cells[1]) for cells in rows[-4:]] == [(m, n) for n in ("8", "12") for m in ("tikhonov", "cubic")]
    assert all(float(cells[2]) < 1e-3 for cells in rows[-4:-2]) and rows[-1][2] == ""
    formats = {cells[0] for cells in rows[2:10]}
    assert formats == {"float32", "TensorFloat-32", "bfloat16", "float16"}
    assert "left out for want of time: nothing" in out


def test_it_ends_in_time_and_says_what_it_left_out(cuda, monkeypatch, capsys):
    out = call(monkeypatch, capsys, *["--minutes", "0", "--sides", "12", "--methods", "tv"])
    assert out.splitlines()[-1].endswith("tv at 12") and "bfloat16" in out


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        call(monkeypatch, capsys)
    assert "PyTorch finds no GPU here: --device cpu" in capsys.readouterr().err
