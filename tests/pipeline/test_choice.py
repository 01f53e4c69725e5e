"""How a method is chosen: by its options, by what fits the scan, by the memory that is free."""

import numpy as np
import pytest

import invsr
from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.pipeline import memory
from invsr.pipeline.choice import method_of
from invsr.pipeline.methods import METHODS, options_of


def test_the_default_is_what_fits_the_scan(monkeypatch, truth, scan):
    def solve(self, problem, progress=None):
        return invsr.solvers.Solution(problem.operator.adjoint(problem.y), problem.domain)

    for kind in METHODS.values():  # which one is chosen is the question, not what it finds
        monkeypatch.setattr(kind, "solve", solve)

    def chosen(*scans, **options):
        return invsr.reconstruct(list(scans), reference=truth.grid, **options).method.name

    assert chosen(scan) == "unrolled"
    assert chosen(scan, lam=0.01) == chosen(scan, noise_model="huber") == "tv"
    assert chosen(scan, slice_thickness=1.0) == "unrolled"  # gaps
    thin = invsr.Scan(invsr.simulate(truth, slice_thickness=1.5, noise=0.01, axis=2), slice_thickness=1.5)
    assert chosen(thin) == "pnp"  # hardly thick
    thick = invsr.simulate(truth, slice_thickness=14.0, noise=0.01, axis=2)
    assert chosen(thick) == chosen(scan, noise=0.2) == "tv"
    assert chosen(scan, method="cubic") == "cubic"
    again = invsr.simulate(truth, slice_thickness=4.0, axis=2, noise=0.01, seed=1)
    assert chosen(scan, again) == "unrolled"
    assert chosen(thick, invsr.simulate(truth, slice_thickness=14.0, noise=0.01, axis=2, seed=1)) == "pnp"  # untrained
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    oblique = invsr.Volume(scan.data, Grid(scan.grid.shape, turn @ scan.grid.affine), "oblique")
    assert chosen(scan, oblique) == "unrolled"
    assert chosen(thick, oblique) == chosen(scan, again, lam=0.01) == "tv"


USED = {
    "cubic": (),
    "tikhonov": ("lam", "max_iter"),
    "tv": ("lam", "huber", "max_iter"),
    "pnp": ("tile", "denoiser", "solver", "lam", "adapt", "max_iter"),
    "unrolled": ("tile", "model"),
    "deq": ("tile", "model"),
    "posterior": ("tile", "denoiser", "n_samples", "adapt"),
}
VALUES = {
    "lam": 0.01,
    "huber": 0.1,
    "solver": "hqs",
    "denoiser": "mri-denoiser-fast",
    "adapt": True,
    "model": "mri-unrolled",
    "max_iter": 3,
    "n_samples": 2,
    "tile": 50_000,
}


@pytest.mark.parametrize("option", VALUES)
@pytest.mark.parametrize("method", USED)
def test_an_option_that_the_method_does_not_use_is_an_error(method, option):
    if option in USED[method]:
        assert getattr(method_of(method, {option: VALUES[option]}), option) == VALUES[option]
    else:
        with pytest.raises(InvsrError, match=f"method {method} does not use the option {option} "):
            method_of(method, {option: VALUES[option]})


def test_every_method_and_option_is_in_these_tables():
    assert {name: options_of(kind) for name, kind in METHODS.items()} == {
        name: [*used, *(["seed"] if name in ("pnp", "posterior") else [])] for name, used in USED.items()
    }


@pytest.mark.parametrize(
    ("options", "method"),
    [
        (("lam",), "tv"),
        (("max_iter",), "tv"),
        (("huber",), "tv"),
        (("solver",), "pnp"),
        (("denoiser",), "pnp"),
        (("adapt",), "pnp"),
        (("n_samples",), "posterior"),
        (("model",), "unrolled"),
        (("lam", "solver"), "pnp"),
        (("denoiser", "n_samples"), "posterior"),
    ],
)
def test_an_option_without_a_method_implies_one(options, method):
    assert method_of("auto", {name: VALUES[name] for name in options}).name == method
    assert method_of("auto", {"model": "mri-deq"}).name == "deq"


def test_options_that_no_method_shares_are_an_error():
    with pytest.raises(InvsrError, match="no method uses all of the options huber, solver"):
        method_of("auto", {"huber": 0.1, "solver": "hqs"})


def test_a_method_object_owns_its_options(scan, truth):
    found = invsr.reconstruct(scan, method=invsr.methods.TV(lam=0.01, max_iter=4), reference=truth.grid)
    assert found.method.lam == found.lam == 0.01 and len(found.history) == 4
    with pytest.raises(InvsrError, match="lam given beside a TV object"):
        invsr.reconstruct(scan, method=invsr.methods.TV(), lam=0.01)


def test_auto_takes_the_next_method_where_memory_is_short(monkeypatch, scan, truth):
    needed = memory.needed_memory(invsr.methods.TV.volumes_in_memory, truth.grid, [scan.grid])
    monkeypatch.setattr("invsr.numerics.memory.free_memory", lambda device: needed)
    with pytest.warns(InvsrWarning, match="method unrolled needs about .* tv is used instead"):
        found = invsr.reconstruct(scan, reference=truth.grid)
    assert found.method.name == "tv"
    monkeypatch.setattr("invsr.numerics.memory.free_memory", lambda device: needed - 1)
    with pytest.warns(InvsrWarning, match="method unrolled needs about .* cubic is used instead"):
        assert invsr.reconstruct(scan, reference=truth.grid).method.name == "cubic"
    monkeypatch.setattr("invsr.numerics.memory.free_memory", lambda device: needed)
    # Much noise is not what the network was trained for: TV is chosen, and its memory is what counts.
    assert invsr.reconstruct(scan, reference=truth.grid, noise=0.2).method.name == "tv"
