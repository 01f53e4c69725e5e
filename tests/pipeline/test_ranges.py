"""What lies outside the acquisitions that a network was trained on."""

from types import SimpleNamespace

import pytest

from invsr.errors import InvsrWarning
from invsr.pipeline.problem import SliceGeometry
from invsr.pipeline.ranges import GAP, NOISE, OTHER, THICK, THIN, outside, warn_outside


def one_scan(thickness=4.0, gap=1.0, **options):
    """What `outside` reads of a problem."""
    slices = options.pop("slices", [SliceGeometry(2, thickness, gap)])
    known = {"sigma": 0.02, "all_slices": slices, "slices_move": False, "is_oblique": False}
    return SimpleNamespace(**known | {"operator": SimpleNamespace(complex_range=False)} | options)


def test_k_space_is_outside():
    about = {"thickness": [2, 8], "gap": 0.3, "noise": [0.002, 0.04]}
    assert set(outside(about, one_scan(operator=SimpleNamespace(complex_range=True)))) == {OTHER}


def test_networks_for_k_space():
    about = {"thickness": [2, 8], "gap": 0.3, "noise": [0.002, 0.04], "kspace": 1.0}
    k_space = {"operator": SimpleNamespace(complex_range=True), "slices": []}
    assert not outside(about, one_scan(**k_space))
    assert set(outside(about, one_scan(**k_space, sigma=0.1))) == {NOISE}
    assert (
        "slices thicker than voxels" in outside(about, one_scan(**k_space | {"slices": one_scan().all_slices}))[OTHER]
    )
    assert outside(about, one_scan())[OTHER].startswith("images")
    assert not outside(about | {"kspace": 0.5}, one_scan())


def test_ranges_of_training():
    about = {"thickness": [2, 8], "gap": 0.3, "noise": [0.002, 0.04]}
    warn_outside(about, one_scan())
    with pytest.warns(InvsrWarning, match=r"gaps of 0.25 of the thickness: .*trained on 0 to 0.1: compare with"):
        warn_outside(about | {"gap": 0.1}, one_scan())
    with pytest.warns(InvsrWarning, match=r"noise of 0.02 of the peak"):
        warn_outside(about | {"noise": [0.002, 0.01]}, one_scan())


def test_ranges_of_training_with_thin_slices():
    about = {"thickness": [2, 8], "gap": 0.5, "noise": [0.002, 0.04], "thin": 0.1}
    assert not outside(about, one_scan(0.4, 3.6)) and not outside(about, one_scan(4.0, 2.0))
    assert set(outside(about, one_scan(0.1, 3.9))) == {THIN, GAP}
    assert set(outside(about, one_scan(4.0, 10.0))) == {GAP}  # 12 voxels are the largest distance
    assert set(outside(about, one_scan(0.4, 0.0))) == {THIN}  # thin, and not far apart
    assert set(outside({**about, "thin": 0.0}, one_scan(0.4, 3.6))) == {THIN, GAP}


@pytest.mark.parametrize(
    ("how", "shares", "words"),
    [
        ({}, {}, "2 scans: the network was trained on one"),
        ({}, {"stacks": 0.4}, None),
        ({"is_oblique": True}, {"stacks": 0.4}, "2 scans that lie obliquely"),
        ({"is_oblique": True}, {"stacks": 0.4, "oblique": 0.3}, None),
        ({"is_oblique": True, "slices_move": True}, {"stacks": 0.4, "oblique": 0.3}, "2 scans whose slices moved"),
    ],
)
def test_ranges_of_training_with_several_scans(how, shares, words):
    about = {"thickness": [2, 8], "gap": 0.3, "noise": [0.002, 0.04], **shares}
    problem = one_scan(slices=[SliceGeometry(2, 4.0, 0.0), SliceGeometry(0, 3.0, 0.5)], **how)
    found = outside(about, problem)
    assert (OTHER in found and found[OTHER].startswith(words)) if words else not found
    thick = one_scan(slices=[SliceGeometry(2, 4.0, 0.0), SliceGeometry(0, 12.0, 0.0)], **how)
    assert THICK in outside(about, thick)  # of any scan
