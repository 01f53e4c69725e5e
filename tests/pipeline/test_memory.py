"""A budget of memory: what it leaves, what networks are given of it, and that tiles leave no seams."""

import pytest
import torch

import invsr
from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics import memory
from invsr.operators import Diagonal, Identity, KSpaceMask, NonUniformKSpace, Stack, acquisition, radial
from invsr.pipeline.learned import LEAST_TILE
from invsr.pipeline.memory import SHARE, Budget
from invsr.pipeline.methods import METHODS, TV, PnP, Posterior, Unrolled
from invsr.pipeline.problem import InverseProblem
from invsr.testing.kspace import simulate_noncartesian
from invsr.testing.phantoms import centred_grid, shapes

CPU = torch.device("cpu")


def scan_of(*shape):
    grid = centred_grid(shape, 1.0)
    truth = invsr.Volume(shapes(grid, n_samples=16, size=50.0), grid)
    return invsr.simulate(truth, slice_thickness=4, axis=0, noise=0.01)


@pytest.fixture(scope="module")
def scan():
    return scan_of(64, 40, 36)


@pytest.mark.usefixtures("unmoved")
@pytest.mark.parametrize("name", ["unrolled", "deq", "pnp"])
def test_tiles_leave_no_seams(name):
    options = {"pnp": {"max_iter": 6}}.get(name, {})
    tile, scan = 18_000, scan_of(48, 20, 20)  # two tiles, along the one axis that networks do not see all of
    whole = invsr.reconstruct(scan, spacing=1.0, method=METHODS[name](**options))
    tiled = invsr.reconstruct(scan, spacing=1.0, method=METHODS[name](tile=tile, **options))
    assert float((whole.x - tiled.x).abs().max() / whole.x.abs().max()) < 1e-4
    seen = []
    inner = METHODS[name](tile=tile, **options)
    prior = inner.prior_in_use()
    prior.network.register_forward_hook(lambda network, given, out: seen.append(out.numel()))
    prior.tile = tile
    prior.prox(whole.x, 0.1)
    assert len(seen) > 1 and max(seen) <= tile


def problem(side):
    """One of that many voxels along each side, without the numbers."""
    operator = Identity(Grid.from_spacing((side,) * 3, 1.0))
    return InverseProblem(operator, torch.zeros(()).expand(1, 1, *(side,) * 3), 0.01, ())


@pytest.mark.parametrize("name", ["mri-denoiser", "mri-denoiser-gs"])
@pytest.mark.parametrize("kind", [PnP, Posterior])
def test_networks_get_what_the_budget_leaves(kind, name):
    method, large = kind(denoiser=name), problem(400)
    least, own = method.memory(large), method.own_memory(large)
    whole = method.prior_in_use().memory((400,) * 3, CPU)
    assert method.within(large, own + whole) == method
    for available in (least, (least + own + whole) // 2):
        chosen = method.within(large, available)
        assert LEAST_TILE <= chosen.tile < 400**3
        assert chosen.memory(large) <= available
    assert method.within(problem(32), least) == method


def test_a_large_volume_takes_no_more_memory_in_an_unrolled_network():
    # It goes through a few planes at a time.
    method = Unrolled()
    network = method.prior_in_use().network
    assert network.memory((20, 300, 300), CPU) == network.memory((500, 300, 300), CPU) < 2 * 10**9
    large = problem(400)
    whole = method.own_memory(large) + method.prior_in_use().memory((400,) * 3, CPU)
    assert method.within(large, whole) == method
    assert method.within(large, whole - 1).tile < 400**3


def test_kspace_takes_room_for_complex_numbers_coils_and_doubled_matrices():
    grid = Grid.from_spacing((32,) * 3, 1.0)
    coils = torch.ones((8, *grid.shape), dtype=torch.complex64)
    spokes = radial(40, 32, 32)
    ball = torch.cat([spokes, spokes[..., :1]], -1)
    mask = KSpaceMask(grid, torch.ones(grid.shape), coils)
    slices = acquisition(grid, reference=grid.refine((1.0, 1.0, 0.5)), in_plane="none", through_plane=2)
    flat, round_ = (NonUniformKSpace(grid, k, coils, axes=axes) for k, axes in ((spokes, (0, 1)), (ball, (0, 1, 2))))
    taken = [one.working_memory() for one in (Identity(grid), mask, mask @ slices, flat, round_)]
    assert taken == sorted(taken) and taken[0] == 0 and taken[1] >= 4 * grid.size * 2 * 8
    assert taken[4] > 8 * 8 * grid.size * 10  # complex images of twice the matrix
    some = Diagonal(mask.range, torch.ones(mask.range.shape)) @ mask
    assert some.working_memory() == mask.working_memory() == Stack([mask, mask]).working_memory() // 2
    method, image = TV(), InverseProblem(Identity(grid), torch.zeros(1, 1, *grid.shape), 0.01, ())
    of_kspace = InverseProblem(round_, torch.zeros(()), 0.01, ())
    assert method.memory(of_kspace) > method.memory(image) + taken[4] // 2


def test_spokes_that_do_not_fit_are_refused(monkeypatch):
    grid = centred_grid((24, 24, 24), 1.0)
    truth = invsr.Volume(shapes(grid, n_samples=8, size=24.0), grid)
    raw, maps, _ = simulate_noncartesian(truth, radial(30, 24, 24), n_coils=2, noise=0.01, axes=(0, 1))
    images = TV().memory(InverseProblem(Identity(grid), torch.zeros(1, 1, *grid.shape), 0.01, ()))
    monkeypatch.setattr(Budget, "on", classmethod(lambda cls, device, limit=None: cls(2 * images)))
    with pytest.raises(InvsrError, match="tv on .* needs about"):
        invsr.reconstruct_raw(raw, method="tv", maps=maps, noise=0.01)


def test_a_tile_of_ones_own_stays():
    assert Unrolled(tile=70_000).within(problem(400), 10**12).tile == 70_000


@pytest.mark.usefixtures("unmoved")
def test_a_prior_of_ones_own_is_not_changed(scan):
    prior = invsr.priors.pretrained("mri-denoiser-fast")
    before = prior.tile
    found = invsr.reconstruct(scan, spacing=2.0, method=PnP(denoiser=prior, tile=40_000, max_iter=2))
    assert prior.tile == before and found.method.tile == 40_000


def test_a_prior_that_is_no_network_takes_no_tiles():
    method = PnP(denoiser=invsr.priors.TV())
    assert method.within(problem(400), 10**9) is method


def test_budget(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 10 * 10**9)
    monkeypatch.setattr(memory, "held_memory", lambda device: 10**9)
    assert Budget.on(CPU).available == 10 * 10**9
    assert Budget.on(CPU).comfortable == round(SHARE * 10 * 10**9)
    assert Budget.on(CPU, 6).available == Budget.on(CPU, 6).comfortable == 5 * 10**9
    assert Budget.on(CPU, 60).available == 10 * 10**9
    for limit in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InvsrError, match="memory is .* GB: give a number above zero"):
            Budget.on(CPU, limit)
    with pytest.raises(InvsrError, match="memory is 1 GB: the program and the scans alone hold 1.0 GB: give more"):
        Budget.on(CPU, 1)


def test_what_does_not_fit_the_budget_is_refused(scan, monkeypatch):
    monkeypatch.setattr(memory, "held_memory", lambda device: 10**9)
    with pytest.raises(InvsrError, match=r"needs about .* GiB of memory and 0.0 GiB are left of the 1.01 GB allowed"):
        invsr.reconstruct(scan, spacing=0.5, method="tv", memory=1.01)


def test_memory_limit_of_the_process_counts():
    assert 0 < memory.free_memory(CPU) < 2**50
    assert 0 < memory.held_memory(CPU) < 2**50


@pytest.mark.parametrize(
    ("own", "folder", "names"),
    [
        ("0::/batch/job", "batch/job", ("memory.max", "memory.current", "inactive_file")),
        ("0::/batch/job", "batch", ("memory.max", "memory.current", "inactive_file")),
        ("0::/of/the/host", "", ("memory.max", "memory.current", "inactive_file")),
        (
            "3:memory:/job\n2:cpu:/job",
            "memory/job",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_limits_of_control_groups_count(tmp_path, monkeypatch, own, folder, names):
    (tmp_path / "own").write_text(own)
    monkeypatch.setattr(memory, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    there = tmp_path / "groups" / folder
    there.mkdir(parents=True)
    limit, usage, cached = names
    (there / usage).write_text("5000000\n")
    (there / "memory.stat").write_text(f"anon 1\n{cached} 2000000\n")
    (there / limit).write_text("max\n")
    assert memory.free_memory(CPU) > 4_000_000
    (there / limit).write_text("7000000\n")
    assert memory.free_memory(CPU) == 4_000_000
