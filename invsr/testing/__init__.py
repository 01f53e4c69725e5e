"""For tests, yours and ours: checks of operators, phantoms, simulated scans, figures of merit."""

from invsr.testing import phantoms
from invsr.testing.metrics import contrast_to_noise, evaluate, gain, head_mask, ms_ssim, peak, vif
from invsr.testing.operator_checks import check_operator
from invsr.testing.operator_report import OperatorCheckError, OperatorReport
from invsr.testing.simulation import simulate

__all__ = [
    "OperatorCheckError",
    "OperatorReport",
    "check_operator",
    "contrast_to_noise",
    "evaluate",
    "gain",
    "head_mask",
    "ms_ssim",
    "peak",
    "phantoms",
    "simulate",
    "vif",
]
