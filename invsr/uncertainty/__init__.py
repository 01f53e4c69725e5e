"""How sure a reconstruction is: posterior samples, bootstrap, and what the data determine."""

from invsr.uncertainty.bootstrap import equivariant_bootstrap
from invsr.uncertainty.evidence import Evidence, split_evidence
from invsr.uncertainty.posterior import Samples, sample_posterior

__all__ = ["Evidence", "Samples", "equivariant_bootstrap", "sample_posterior", "split_evidence"]
