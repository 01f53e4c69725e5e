"""Patches drawn from label maps and images."""

import warnings

import nibabel as nib
import numpy as np
import pytest
import torch

from invsr.errors import InvsrError, InvsrWarning
from invsr.training import synthesis
from invsr.training.synthesis import Anatomies, Draw

SIZE = (12, 16, 20)
PLAIN = {
    "voxel": (1, 1),
    "rotation": 0,
    "shear": 0,
    "bend": 0,
    "bias": 0,
    "blur": 0,
    "texture": 0,
    "structure": 0,
    "apodise": 0,
    "noise": 0,
}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def paths(folder):
    return [folder / "image.nii.gz", folder / "deeper" / "labels.nii.gz"]


def test_patches(folder):
    anatomies = Anatomies(paths(folder), Draw(noise=0))
    draws = [anatomies.patch(SIZE, seeded(n)) for n in range(20)]
    for patch in draws:
        assert patch.shape == (1, *SIZE) and patch.isfinite().all()
        assert patch.min() >= 0 and patch.max() < 3.6
        assert (patch > 1.1).float().mean() < 0.06
    assert torch.equal(draws[3], anatomies.patch(SIZE, seeded(3)))
    assert not torch.equal(draws[3], draws[4])


def test_contrasts_of_one_anatomy(folder):
    """Edges at the same places, intensities of their own, and a single contrast as if there were no others."""
    anatomies = Anatomies(paths(folder), Draw(noise=0, structure=0, bias=0, texture=0, blur=0, apodise=0))
    draws = [anatomies.patch(SIZE, seeded(n), 3) for n in range(20)]
    assert {tuple(one.shape) for one in draws} == {(3, *SIZE)}
    assert all(not torch.equal(one[0], one[1]) for one in draws)
    assert torch.equal(draws[2], anatomies.patch(SIZE, seeded(2), 3))
    cosines = []
    for patch in draws:
        first, second = (torch.stack(torch.gradient(one)).flatten(1) for one in patch[:2].double())
        weight = first.norm(dim=0) * second.norm(dim=0)
        cosines.append(float(((first * second).sum(0) ** 2).sum() / (weight**2).sum().clamp(min=1e-12)))
    assert np.median(cosines) > 0.8  # random directions would have a third


def test_all_contrasts_are_stripped_or_none(tmp_path, write):
    outside = np.full((32, 32, 32), 50, np.uint8)
    outside[:, 0, 0] = np.arange(32) % 4
    anatomies = Anatomies([write(tmp_path / "labels.nii", outside)], Draw(**PLAIN, strip=0.5))
    draws = [anatomies._from_labels(anatomies.labels[0], (8, 8, 8), seeded(n), 3) for n in range(12)]
    assert {tuple((one > 0.03).flatten(1).any(1).tolist()) for one in draws} == {(True,) * 3, (False,) * 3}


def test_label_maps_are_told_from_images(folder, tmp_path, write):
    whole_numbers = write(tmp_path / "ct.nii", np.arange(1000).reshape(10, 10, 10).astype(np.int16))
    anatomies = Anatomies([*paths(folder), whole_numbers])
    assert len(anatomies.labels) == 1 and len(anatomies.images) == 2 and not anatomies.lesions
    assert anatomies.labels[0].data.unique().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("odd", [64, 200, -1, 2.5])
def test_one_voxel_that_is_no_label_makes_an_image(odd, tmp_path, write):
    values = (np.arange(1000) % 5).reshape(10, 10, 10).astype(np.float32)
    values[0, 0, 1] = odd
    anatomies = Anatomies([write(tmp_path / "odd.nii", values)])
    assert not anatomies.labels and len(anatomies.images) == 1
    assert all(anatomies.patch((8, 8, 8), seeded(n)).isfinite().all() for n in range(5))


def test_files_that_teach_what_is_wrong_are_named(tmp_path, write):
    areas = np.zeros((24, 24, 24), np.int16)
    areas[4:12, 4:20, 4:20], areas[12:20, 4:20, 4:20] = 2, 2035
    with pytest.warns(InvsrWarning, match=r"aseg.nii: holds whole numbers from 0 to 2035 .* recode"):
        Anatomies([write(tmp_path / "aseg.nii", areas)])
    image = np.random.default_rng(0).random((12, 12, 12)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.diag([1, 1, 5, 1])), tmp_path / "thick.nii")
    with pytest.warns(InvsrWarning, match=r"thick.nii: has voxels of 1x1x5 mm"):
        Anatomies([tmp_path / "thick.nii"])
    nib.save(nib.Nifti1Image((200 * image).astype(np.uint8), np.diag([1, 1, 1.5, 1])), tmp_path / "fine.nii")
    with warnings.catch_warnings():
        warnings.simplefilter("error", InvsrWarning)
        Anatomies([tmp_path / "fine.nii"])


def test_files_of_several_volumes_are_refused(tmp_path, write):
    series = np.random.default_rng(0).random((12, 12, 12, 3)).astype(np.float32)
    with pytest.raises(InvsrError, match="series.nii: holds 3 volumes: .*save one as a file of its own"):
        Anatomies([write(tmp_path / "series.nii", series)])


def test_masks_are_lesions_and_no_anatomy(folder, tmp_path, write):
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[5:9, 6:12, 0:3] = 1
    lesion = write(tmp_path / "lesion.nii", mask)
    anatomies = Anatomies([*paths(folder), lesion])
    assert len(anatomies.labels) == len(anatomies.images) == 1
    (found,) = anatomies.lesions
    assert found.shape == (1, 1, 6, 8, 4) and found.sum() == mask.sum()  # a margin of one voxel within the volume
    with pytest.raises(InvsrError, match="besides lesion masks"):
        Anatomies([lesion])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_structures_come_into_patches_of_both_kinds(share, folder, monkeypatch):
    def half(images, lesions, generator):
        images[:, : images.shape[1] // 2] = 0
        return images

    monkeypatch.setattr(synthesis.structures, "insert", half)
    for probability in (0, 1):
        draw = Draw(**PLAIN | {"structure": probability, "straight": 1, "strip": 0})
        anatomies = Anatomies(paths(folder), draw, label_share=share)
        empty = [not anatomies.patch(SIZE, seeded(n))[:, : SIZE[0] // 2 - 1].any() for n in range(5)]
        assert empty == [bool(probability)] * 5


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 0.8, 1.3)])
def test_patches_have_their_voxel_size_in_mm_whatever_the_source(spacing, tmp_path, monkeypatch):
    """On a ramp along each axis of 1 per mm, a patch with voxels of 1.1 mm has slopes of 1.1, before its scaling."""
    monkeypatch.setattr(synthesis, "_mapped", lambda image, _: image)
    for axis in range(3):
        ramp = 100 + spacing[axis] * np.indices((64, 64, 64))[axis]
        path = tmp_path / f"ramp{axis}.nii"
        nib.save(nib.Nifti1Image(np.float32(ramp), np.diag([*spacing, 1])), path)
        anatomies = Anatomies([path], Draw(**PLAIN | {"voxel": (1.1, 1.1), "straight": 0}))
        (image,) = anatomies.images
        points = synthesis._positions(image, (6, 6, 6), anatomies.draw, seeded(axis))
        sampled = synthesis._linear(image.data, points) * np.quantile(np.float32(ramp), 0.999)
        slopes = [sampled.diff(dim=n).mean() for n in range(3)]
        torch.testing.assert_close(torch.stack(slopes).abs().max(), torch.tensor(1.1), rtol=1e-3, atol=0)


def test_voxels_are_not_much_finer_than_the_source(tmp_path):
    path = tmp_path / "coarse.nii"
    nib.save(nib.Nifti1Image(np.full((16, 16, 16), 5, np.float32), np.diag([2.0, 2.0, 2.0, 1])), path)
    anatomies = Anatomies([path], Draw(**PLAIN | {"voxel": (0.6, 0.6)}))
    points = synthesis._positions(anatomies.images[0], (4, 4, 4), anatomies.draw, seeded(0))
    steps = torch.stack([points.diff(dim=n).norm(dim=-1).mean() for n in range(3)])
    torch.testing.assert_close(steps, torch.full((3,), synthesis.FINEST_ZOOM))


@pytest.mark.parametrize("straight", [0, 1])
def test_image_without_distortions_is_a_turned_piece_of_it(straight, tmp_path, write, monkeypatch):
    """On a ramp, linear interpolation is exact: the slopes stay what they were, in any order and sign."""
    slopes = np.array([1.0, 2.0, 4.0])
    ramp = sum(slope * axis for slope, axis in zip(slopes, np.indices((64, 64, 64)), strict=True))
    monkeypatch.setattr(synthesis, "_mapped", lambda image, _: image)
    anatomies = Anatomies([write(tmp_path / "ramp.nii", np.float32(100 + ramp))], Draw(**PLAIN, straight=straight))
    orders = set()
    for seed in range(8):
        patch = anatomies.patch((6, 6, 6), seeded(seed))[0]
        found = [patch.diff(dim=axis) for axis in range(3)]
        for steps in found:
            torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=0, atol=2e-6)
        means = np.array([float(steps.mean()) for steps in found])
        np.testing.assert_allclose(np.sort(abs(means)) / abs(means).min(), slopes, rtol=1e-3)
        orders.add((*np.argsort(abs(means)), *np.sign(means)))
    assert len(orders) > 4


def test_pieces_keep_their_finest_texture_and_end_in_zeros(tmp_path, write, monkeypatch):
    monkeypatch.setattr(synthesis, "_mapped", lambda image, _: image)
    checks = np.indices((24, 24, 24)).sum(0) % 2
    anatomies = Anatomies([write(tmp_path / "checks.nii", np.float32(0.5 + 0.5 * checks))], Draw(**PLAIN, straight=1))
    shares = []
    for seed in range(12):
        patch = anatomies.patch((14, 14, 14), seeded(seed))
        levels = (patch / patch.max()).unique()
        torch.testing.assert_close(levels, torch.tensor([0.0, 0.5, 1.0])[-len(levels) :], rtol=0, atol=1e-5)
        shares.append(float((patch > 0).float().mean()))
    assert max(shares) == 1 and min(shares) < 1


def test_noise_that_stays(folder):
    quiet, noisy = (Anatomies(paths(folder), Draw(noise=level)) for level in (0, 0.02))
    spread = [float((noisy.patch(SIZE, seeded(n)) - quiet.patch(SIZE, seeded(n))).std()) for n in range(30)]
    assert 8 <= sum(level == 0 for level in spread) <= 22
    assert 0.012 < max(spread) < 0.022


def test_partial_volume(tmp_path, write, monkeypatch):
    monkeypatch.setattr(synthesis, "smooth", lambda x, *_: x)
    monkeypatch.setattr(synthesis, "_contrast", lambda *_: (torch.arange(64) / 64, torch.zeros(64)))
    slabs = np.broadcast_to(np.repeat([10, 20, 30, 40], 16)[:, None, None], (64, 64, 64)).astype(np.uint8)
    patch = Anatomies([write(tmp_path / "slabs.nii", slabs)], Draw(**PLAIN)).patch((20, 20, 20), seeded(1))
    values = patch.unique()
    plateaus = [value for value in values.tolist() if (patch == value).sum() > 1000]
    between = ((patch > min(plateaus)) & (patch < max(plateaus)) & ~torch.isin(patch, torch.tensor(plateaus))).sum()
    assert len(plateaus) >= 2
    assert 100 < between < 2500  # a layer or two of 400 voxels at each border


def test_contrast_changes_from_draw_to_draw():
    tissues = [1, 2, 7, 3]
    ranks = {tuple(synthesis._contrast(Draw(), seeded(n))[0][tissues].argsort().tolist()) for n in range(12)}
    assert len(ranks) > 4


def test_strip_leaves_out_what_is_not_brain(tmp_path, write):
    outside = np.random.default_rng(0).integers(45, 52, (24, 24, 24)).astype(np.uint8)
    path = write(tmp_path / "head.nii", outside)
    assert Anatomies([path], Draw(strip=1.0, noise=0)).patch((8, 8, 8), seeded(0)).max() == 0
    assert Anatomies([path], Draw(strip=0.0)).patch((8, 8, 8), seeded(0)).max() > 0.5


def test_sparse_anatomy_is_not_scaled_by_its_background(tmp_path, write):
    spots = np.zeros((40, 40, 40), np.float32)
    spots[::9, ::9, ::9] = 1.0
    spots[20:22, 20:22, 20:22] = np.arange(8).reshape(2, 2, 2) + 0.5
    anatomies = Anatomies([write(tmp_path / "spots.nii", spots)])
    assert max(float(anatomies.patch((16, 16, 16), seeded(n)).max()) for n in range(5)) < 3.6


def test_bad_data(tmp_path, write):
    with pytest.raises(InvsrError, match="no training volume"):
        Anatomies([])
    text = tmp_path / "text.nii"
    text.write_text("not an image")
    empty = write(tmp_path / "zero.nii", np.zeros((8, 8, 8), np.float32))
    negative = write(tmp_path / "negative.nii", -np.random.default_rng(0).random((8, 8, 8)))
    for path in (text, empty, negative, tmp_path / "missing.nii"):
        with pytest.raises(InvsrError, match=path.name):
            Anatomies([path])
