"""The demo leaves what it says, and the example head is what its page says."""

import numpy as np
import pytest

import invsr
from invsr.app.demo import run_demo
from invsr.examples import INFARCT, crop, example


def test_demo_leaves_volumes_scores_and_a_picture(tmp_path):
    lines = run_demo(tmp_path / "out", truth=example(side=32))
    psnr = {line.split(":")[0]: float(line.split("PSNR ")[1].split(" ")[0]) for line in lines[:-1]}
    assert psnr["cubic"] < psnr["tv"] < psnr["unrolled"]
    found = {name: invsr.load(tmp_path / "out" / f"{name}.nii.gz") for name in ("truth", "scan", *psnr)}
    assert found["scan"].grid.spacing.round(6).tolist() == [1, 1, 5]
    assert all(found[name].grid == found["truth"].grid for name in psnr)
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 10_000


def test_demo_says_where_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(invsr.InvsrError, match="no folder can be made there"):
        run_demo(tmp_path / "file" / "out", truth=example(side=32))


def test_a_demo_that_fails_leaves_no_folder(tmp_path):
    with pytest.raises(invsr.InvsrError, match="slice thickness is nan"):
        run_demo(tmp_path / "new" / "out", float("nan"), truth=example(side=32))
    assert not (tmp_path / "new").exists()


def test_the_example_is_a_head_with_an_infarct_on_the_left():
    head = example()
    assert head.grid.shape == (124, 160, 140) and np.allclose(head.grid.spacing, 1)
    # The infarct is on the patient's left, and in T2 brighter than most of the head.
    assert head.grid.to_world(INFARCT)[0] < head.grid.centre[0] - 20
    tissue = head.numpy()[head.numpy() > 0]
    around = crop(head, 7, INFARCT)
    assert around.numpy().mean() > np.percentile(tissue, 75)


@pytest.mark.parametrize("about", [None, (0, 0, 0), (123, 159, 139), INFARCT])
def test_crops_keep_their_place_in_the_world(about):
    head = example()
    part = crop(head, 20, about)
    assert part.grid.shape == (20, 20, 20)
    first = head.grid.to_voxel(part.grid.origin).round(4)
    i, j, k = first.astype(int)
    np.testing.assert_allclose(first, [i, j, k])
    np.testing.assert_array_equal(part.numpy(), head.numpy()[i : i + 20, j : j + 20, k : k + 20])
