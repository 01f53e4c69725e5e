"""What several test files use."""

import signal
import sys

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from invsr.app import command_line as cli
from invsr.app.signals import STOPS


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=5, help="how many commands tests/interrupted kills")
    parser.addoption("--fuzz-cases", type=int, default=500, help="how many cases tests/fuzz makes")
    parser.addoption("--fuzz-log", help="a file for a line of JSON for each case; faults do not end the run")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: (exit code, standard output, standard error)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["invsr", *map(str, words)])
        handlers = {one: signal.getsignal(one) for one in STOPS}
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            for one, handler in handlers.items():
                signal.signal(one, handler)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="session")
def write():
    """Write an array as NIfTI, 1 mm: (path, data) to path."""

    def call(path, data):
        nib.save(nib.Nifti1Image(np.asarray(data), np.eye(4)), path)
        return path

    return call


@pytest.fixture(scope="session")
def folder(tmp_path_factory, write):
    """A folder with an image and, one folder down, a label map."""
    home = tmp_path_factory.mktemp("data")
    rough = np.random.default_rng(0).random((40, 36, 38))
    smooth = gaussian_filter(rough, 2)
    write(home / "image.nii.gz", np.float32(100 + 900 * (smooth > 0.5) + 100 * rough))
    (home / "deeper").mkdir()
    write(home / "deeper" / "labels.nii.gz", np.uint8(np.digitize(smooth, np.quantile(smooth, [0.2, 0.4, 0.6, 0.8]))))
    return home
