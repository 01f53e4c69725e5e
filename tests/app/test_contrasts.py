"""`invsr reconstruct --contrasts`: scans in, a folder with a volume for each contrast."""

import numpy as np
import pytest

import invsr
from invsr.testing.phantoms import centred_grid, shapes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contrasts")
    grid = centred_grid((24, 24, 24), 1.0)
    data = shapes(grid, n_samples=16, size=24.0)
    for name, one, axis in (("t1", data, 2), ("t2", data.max() - data, 0)):
        scan = invsr.simulate(invsr.Volume(one * (data > 0), grid), slice_thickness=4.0, axis=axis, noise=0.02)
        invsr.save(scan, folder / f"{name}.nii.gz")
    return folder


def test_a_folder_with_a_volume_and_a_report_for_each(run, folder, tmp_path):
    out, report = tmp_path / "out", tmp_path / "report"
    scans = [folder / "t1.nii.gz", folder / "t2.nii.gz"]
    code, said, err = run("reconstruct", *scans, "--contrasts", "-o", out, "--report", report)
    assert code == 0, err
    first, second = (invsr.load(out / one.name) for one in scans)
    assert first.grid == second.grid and first.grid.shape == (24, 24, 24)
    assert "joint-unrolled" in said
    page = (report / "t2" / "report.html").read_text()
    assert "contrast 2: t1" in page and '"Contrasts"' in page
    assert sorted(path.name for path in out.iterdir()) == [
        *("motion-1.tfm", "motion-2.tfm", "motion.json", "t1.nii.gz", "t2.nii.gz")
    ]
    code, _, err = run(
        *("reconstruct", *scans, "--contrast", "a", "b", "-o", tmp_path / "again", "--transforms", out / "motion.json")
    )
    assert code == 0, err
    again = invsr.load(tmp_path / "again" / "b.nii.gz")
    np.testing.assert_allclose(again.numpy(), second.numpy(), atol=1e-3 * float(second.data.max()))


def test_each_on_its_own_grid(run, folder, tmp_path):
    scans = [folder / "t1.nii.gz", folder / "t2.nii.gz"]
    words = ("--contrasts", "--contrast-grid", "own", "--motion", "none", "--method", "tv", "-o", tmp_path / "out")
    code, _, err = run("reconstruct", *scans, *words)
    assert code == 0, err
    for one in scans:
        assert invsr.load(tmp_path / "out" / one.name).grid == invsr.load(one).grid.isotropic()
    code, _, err = run("reconstruct", *scans, *words, "--reference", folder / "t1.nii.gz")
    assert code == 1 and "--reference: with --contrast-grid own" in err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--contrasts", "--method", "pnp"), "method pnp reconstructs each contrast alone"),
        (("--contrasts", "--denoiser", "mri-denoiser"), "--denoiser: several contrasts have no use for it"),
        (("--contrast", "a", "--contrast", "a"), "one contrast: leave contrasts out"),
        (("--contrast", "a/b", "--contrast", "c"), "give a word that a file may be called by"),
        (("--contrasts", "--motion", "slice"), "use none or stack"),
        (("--contrasts", "--contrast-grid", "mine"), "--contrast-grid mine: use common or own"),
        (("--contrast-grid", "own"), "one volume of all scans has one grid"),
    ],
)
def test_refuses(run, folder, tmp_path, words, complaint):
    scans = [folder / "t1.nii.gz", folder / "t2.nii.gz"]
    code, said, err = run("reconstruct", *scans, *words, "-o", tmp_path / "out")
    assert code == 1 and complaint in err and err.count("\n") == 1
    assert not said and not list(tmp_path.iterdir())


def test_refuses_names_that_collide_and_files_as_folders(run, folder, tmp_path):
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other" / "t1.nii.gz"
    copy.write_bytes((folder / "t1.nii.gz").read_bytes())
    code, _, err = run("reconstruct", folder / "t1.nii.gz", copy, "--contrasts", "-o", tmp_path / "out")
    assert code == 1 and "another scan has the same name" in err
    code, _, err = run("reconstruct", folder / "t1.nii.gz", copy, "--contrasts", "-o", tmp_path / "out.nii.gz")
    assert code == 1 and "written into a folder: name one" in err
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
