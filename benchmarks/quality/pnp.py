"""Plug-and-play on simulated thick slices: its four solvers, TV, and deepinv's HQS with its own data step and prior.

    python -m benchmarks.quality.pnp [HIGH.nii.gz ...] [--thickness 4] [--gap 0] [--noise 0.01]
                                     [--denoiser NAME ...] [--route NAME ...] [--adapt]

PSNR (dB) and SSIM inside the head as `invsr benchmark` gives them; seconds of the solve; peak memory of a process that
does nothing else. deepinv gets the same operator as functions A and A*, so that its data step is conjugate gradients;
its weight of TV is that of invsr's own TV run, which the discrepancy principle chose.
"""

import multiprocessing
import resource
import time

import torch

import invsr
from benchmarks.arguments import parser, row, stem, table, truths
from invsr.models.registry import DEFAULT as DEFAULT_DENOISER
from invsr.numerics.levels import peak
from invsr.testing.metrics import evaluate, head_mask

SOLVERS = ("hqs", "admm", "pgd", "red")


def ours(scan, truth, options):
    begin = time.perf_counter()
    found = invsr.reconstruct(scan, reference=truth.grid, **options)
    return found.x, time.perf_counter() - begin, f"chi2 {found.chi2:.2f}, {len(found.history)} iterations"


def deepinv_tv(scan, truth, iterations):
    """deepinv's HQS, CG data step and TV prior, as its documentation composes them."""
    import deepinv

    weight = invsr.reconstruct(scan, reference=truth.grid, method="tv").lam
    operator = invsr.operators.acquisition(scan.grid, reference=truth.grid, slice_thickness=scan.slice_thickness)
    scale = peak(scan.data)
    physics = deepinv.physics.LinearPhysics(A=operator, A_adjoint=operator.adjoint, solver="CG", max_iter=50, tol=1e-4)
    solver = deepinv.optim.HQS(
        data_fidelity=deepinv.optim.L2(),
        prior=deepinv.optim.TVPrior(n_it_max=20, def_crit=1e-5),
        lambda_reg=weight,
        stepsize=1.0,
        max_iter=iterations,
    )
    begin = time.perf_counter()
    with torch.no_grad():
        found = solver(scan.data / scale, physics) * scale
    return found, time.perf_counter() - begin, f"lambda {weight:.2g}, {iterations} iterations"


def routes(options):
    found = {"cubic": (ours, {"method": "cubic"}), "tv": (ours, {"method": "tv"})}
    for denoiser in options.denoiser:
        for solver in SOLVERS:
            run = {"method": "pnp", "solver": solver, "denoiser": denoiser, "adapt": options.adapt}
            found[f"pnp {solver}, {denoiser}"] = (ours, run)
    found["deepinv HQS, CG, TV"] = (deepinv_tv, 60)
    return {name: route for name, route in found.items() if not options.route or name in options.route}


def score(queue, paths, simulation, route, threads):
    torch.set_num_threads(threads)
    (truth,) = truths(paths)
    scan = invsr.simulate(truth, axis=2, **simulation)
    solve, argument = route
    x, seconds, remark = solve(scan, truth, argument)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    scores = evaluate(x[0, 0].numpy(), truth.numpy(), head_mask(truth.numpy()), quick=True)
    queue.put((stem(truth), scores["psnr"], scores["ssim"], seconds, memory, remark))


def main():
    arguments = parser(__doc__, "volumes", "--thickness", "--noise", "--seed")
    arguments.add_argument("--gap", type=float, default=0.0, help="between slices, mm")
    arguments.add_argument("--denoiser", nargs="+", default=[DEFAULT_DENOISER])
    arguments.add_argument("--route", nargs="+", help="only these rows")
    arguments.add_argument("--adapt", action="store_true")
    options = arguments.parse_args()
    shared = {"noise": options.noise, "seed": options.seed}
    simulation = {"slice_thickness": options.thickness, "gap": options.gap, **shared}
    # A process per row: memory then is that row's own.
    context = multiprocessing.get_context("spawn")
    table(["volume", "route", "PSNR", "SSIM", "seconds", "MB", ""])
    for paths in [[path] for path in options.volumes] or [[]]:
        for name, route in routes(options).items():
            queue = context.Queue()
            process = context.Process(target=score, args=(queue, paths, simulation, route, torch.get_num_threads()))
            process.start()
            volume, psnr, ssim, seconds, memory, remark = queue.get()
            process.join()
            row([volume, name, f"{psnr:.2f}", f"{ssim:.4f}", f"{seconds:.1f}", f"{memory:.0f}", remark])


if __name__ == "__main__":
    main()
