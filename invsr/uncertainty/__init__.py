"""How sure a reconstruction is: samples, bootstrap, replicas, predicted errors, and what the data determine."""

from invsr.uncertainty.bootstrap import equivariant_bootstrap
from invsr.uncertainty.evidence import Evidence, split_evidence
from invsr.uncertainty.posterior import Samples, sample_posterior
from invsr.uncertainty.predicted import PredictedDeviation, load_deviation
from invsr.uncertainty.replicas import noise_replicas

__all__ = [
    "Evidence",
    "PredictedDeviation",
    "Samples",
    "equivariant_bootstrap",
    "load_deviation",
    "noise_replicas",
    "sample_posterior",
    "split_evidence",
]
