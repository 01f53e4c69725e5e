"""Options belong to methods: they imply one, and others refuse them."""

import pytest
from scan_files import refused


@pytest.mark.parametrize(
    "options, words",
    [
        (["--method", "tv", "--solver", "pgd"], "method tv does not use the option solver (pgd)"),
        (["--method", "tv", "--denoiser", "nonsense"], "method tv does not use the option denoiser"),
        (["--method", "tv", "--model", "nonsense"], "method tv does not use the option model"),
        (["--method", "unrolled", "--lam", "0.5"], "method unrolled does not use the option lam"),
        (["--method", "cubic", "--max-iter", "1"], "method cubic does not use the option max_iter"),
        (["--method", "tikhonov", "--adapt"], "method tikhonov does not use the option adapt"),
        (["--method", "tv", "--samples", "3"], "method tv does not use the option n_samples"),
        (["--huber", "0.1", "--solver", "hqs"], "no method uses all of the options huber, solver"),
    ],
)
def test_an_option_that_the_method_does_not_use_is_refused(run, tmp_path, scan, options, words):
    out = tmp_path / "out.nii.gz"
    refused(run("reconstruct", scan, "-o", out, *options), out, words)


def test_an_option_implies_its_method(run, tmp_path, scan):
    out = tmp_path / "out.nii.gz"
    code, text, err = run("reconstruct", scan, "-o", out, "--huber", "0.05", "--spacing", "2")
    assert code == 0 and text.startswith("tv: "), err
