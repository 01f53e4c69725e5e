"""The code of the how-to pages and of the first page runs as it stands, and does what its page says."""

import re
from pathlib import Path

import pytest
import torch

import invsr
from invsr.operators import acquisition, add_noise
from invsr.testing.phantoms import centred_grid, shapes

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [DOCS / "start.md", *sorted(DOCS.glob("howto/*.md"))]
PAGES = [page for page in PAGES if "```python" in page.read_text()]


@pytest.fixture
def truth(tmp_path, monkeypatch):
    """A phantom; in the current folder a thick-slice scan of it, a noisy copy and a blurred one."""
    grid = centred_grid((24, 20, 20), 1.0)
    truth = invsr.Volume(shapes(grid, n_samples=16, size=24.0), grid)
    generator = torch.Generator().manual_seed(0)
    blur = acquisition(grid, reference=grid, slice_thickness=3.0, through_plane=2)
    files = {
        "flair": invsr.simulate(truth, slice_thickness=5.0, axis=2, noise=0.01),
        "noisy": truth.with_data(add_noise(truth.data, 0.05, generator=generator)),
        "blurred": truth.with_data(add_noise(blur(truth.data), 0.01, generator=generator)),
    }
    for name, volume in files.items():
        invsr.save(volume, tmp_path / f"{name}.nii.gz")
    monkeypatch.chdir(tmp_path)
    return truth


def error(name, truth):
    return float((invsr.load(name).data - truth.data).square().mean().sqrt())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_of_the_page_runs(page, truth):
    space = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        exec(block, space)
    assert space["result"].status is invsr.solvers.Status.CONVERGED
    if page.stem == "denoising":
        assert error("denoised.nii.gz", truth) < 0.75 * error("noisy.nii.gz", truth)
    if page.stem == "deblurring":
        assert error("sharp.nii.gz", truth) < 0.75 * error("blurred.nii.gz", truth)
    if page.stem == "inpainting":  # the slice that was left out comes back, less well than the others
        found = invsr.load("iso.nii.gz")
        missing = found.data[..., 10:15] - truth.data[..., 10:15]
        assert found.grid == truth.grid
        assert float(missing.square().mean()) < 0.5 * float(truth.data[..., 10:15].square().mean())


def test_the_pages_that_promise_code_have_it():
    assert {"start", "denoising", "deblurring", "inpainting"} <= {page.stem for page in PAGES}
