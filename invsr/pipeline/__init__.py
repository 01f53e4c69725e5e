"""From scans to one isotropic volume."""
