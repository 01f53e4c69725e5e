"""How sure a reconstruction is: posterior samples, bootstrap, and what the data determine."""
