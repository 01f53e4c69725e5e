"""Other libraries: deepinv."""
