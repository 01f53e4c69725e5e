"""How sure a reconstruction is: posterior samples, bootstrap, replicas, and what the data determine."""

from invsr.uncertainty.bootstrap import equivariant_bootstrap
from invsr.uncertainty.evidence import Evidence, split_evidence
from invsr.uncertainty.posterior import Samples, sample_posterior
from invsr.uncertainty.replicas import noise_replicas

__all__ = ["Evidence", "Samples", "equivariant_bootstrap", "noise_replicas", "sample_posterior", "split_evidence"]
