"""A BIDS dataset as a whole: `invsr bids` finds its scans, reconstructs them on Dask workers, sums up the results."""
