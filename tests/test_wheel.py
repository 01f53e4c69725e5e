"""The wheel holds all that the package needs: it is built, and installed into an environment of its own."""

import os
import site
import subprocess
import sys
import venv

import numpy as np
import pytest
import torch

import invsr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The Python of an environment with the wheel, which borrows the other packages."""
    folder = tmp_path_factory.mktemp("wheel")
    quiet = ["--quiet", "--no-deps", "--disable-pip-version-check"]
    build = [sys.executable, "-m", "pip", "wheel", *quiet, "--no-build-isolation", "-w", str(folder), "."]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("invsr-*.whl")
    home = folder / "environment"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    target = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", *quiet, str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # Not by `site`, which would also find this checkout.
    (folder / "borrowed").mkdir()
    for place in site.getsitepackages():
        for name in os.listdir(place):
            if not name.startswith(("invsr", "_editable_impl_invsr", "__editable__")) and not name.endswith(".pth"):
                os.symlink(os.path.join(place, name), folder / "borrowed" / name)
    with open(os.path.join(target, "borrowed.pth"), "w") as file:
        file.write(f"{folder / 'borrowed'}\n")
    return python


def said_by(python, *words, **how):
    return subprocess.run([python, *words], check=True, capture_output=True, text=True, cwd="/", **how).stdout


def test_the_wheel_is_what_is_imported_and_holds_every_file(installed):
    script = (
        "import invsr, os; root = os.path.dirname(invsr.__file__); print(root);"
        "print('\\n'.join(os.path.relpath(os.path.join(a, f), root) for a, _, b in os.walk(root) for f in b))"
    )
    root, *files = said_by(installed, "-c", script).splitlines()
    here = os.path.dirname(invsr.__file__)
    assert root != here
    ours = [os.path.relpath(os.path.join(a, f), here) for a, _, b in os.walk(here) for f in b]
    assert {f for f in files if "__pycache__" not in f} == {f for f in ours if "__pycache__" not in f}


def test_the_commands_work(installed, tmp_path):
    program = installed.with_name("invsr")
    assert "mri-unrolled" in said_by(program, "models")
    assert "participant" in said_by(program, "bids", "--help")
    scan = invsr.Volume(torch.rand(1, 1, 32, 32, 8) + 1, invsr.Grid((32, 32, 8), np.diag([1, 1, 4, 1])))
    invsr.save(scan, tmp_path / "scan.nii.gz")
    words = [
        tmp_path / "scan.nii.gz",
        "-o",
        tmp_path / "out.nii.gz",
        "--method",
        "unrolled",
        "--report",
        tmp_path / "report",
    ]
    assert "unrolled" in said_by(program, "reconstruct", *words)
    assert (tmp_path / "report" / "report.html").is_file()
