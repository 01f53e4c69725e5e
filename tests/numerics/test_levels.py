import torch

from invsr.numerics.levels import peak


def test_the_peak_is_a_high_percentile_of_what_is_not_zero():
    values = torch.arange(1.0, 1001.0)
    assert peak(values) == 999.0
    assert peak(torch.cat([values, torch.zeros(100_000)])) == 999.0  # air that was set to 0 counts for nothing
    assert peak(-values) == 999.0


def test_an_empty_image_has_none():
    assert peak(torch.zeros(3, 3)) == 0.0
