"""What several test files use."""

import os
import shutil
import signal
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from pretend import pretended_cuda
from scipy.ndimage import gaussian_filter

DEVICES = {
    "cpu": "the CPU; GPUs are hidden",
    "cuda": "the GPU",
    "pretended": "as cuda, with tests/devices/pretend.py in the GPU's place",
}

# Of the browser.
QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def pytest_addoption(parser):
    meanings = "; ".join(f"{name}: {meaning}" for name, meaning in DEVICES.items())
    parser.addoption("--device", choices=list(DEVICES), default="cpu", help=f"where tests run [cpu]. {meanings}")
    parser.addoption("--kills", type=int, default=5, help="how many commands tests/interrupted kills")
    parser.addoption("--fuzz-cases", type=int, default=300, help="how many cases tests/fuzz makes")
    parser.addoption("--fuzz-log", help="a file for a line of JSON for each case; faults do not end the run")


def pytest_configure(config):
    # One engine in all runs, where a measurement would choose now one, now the other; test_openvino compares them.
    os.environ.setdefault("INVSR_ENGINE", "torch")
    if config.option.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what chooses a device by itself, commands too, is to choose the CPU
    elif config.option.device == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda: PyTorch finds no GPU here; --device pretended checks what a CPU can")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Hide the GPU from tests that take no device.

    They compare with numpy, scipy, stored figures or a closed form on the CPU, or start processes; what they cover is
    compared between the devices by tests/devices.
    """
    if {"device", "cuda"} & set(getattr(item, "fixturenames", ())):
        return (yield)
    with mock.patch("torch.cuda.is_available", lambda: False):
        return (yield)


@pytest.fixture(scope="session")
def device(request):
    """Where a test is to have its tensors."""
    name = request.config.option.device
    if name == "pretended":
        with pretended_cuda() as pretended:
            yield pretended
    else:
        yield torch.device(name)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: (exit code, standard output, standard error)."""
    pytest.importorskip("typer")  # a machine with a GPU may have little more than PyTorch
    from invsr.app import command_line as cli
    from invsr.app.signals import STOPS

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
    nib = pytest.importorskip("nibabel")

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


@pytest.fixture(scope="module")
def browser():
    """A browser without a window, which keeps a log."""
    program, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if program is None or driver is None:
        pytest.skip("no browser to look at pages with: install Debian's packages chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = program
    for flag in QUIET:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver))
    yield driver
    driver.quit()
