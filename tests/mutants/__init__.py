"""Mistakes planted in the system, in the simulation and on the real stack: each must turn a run red, and for its own reason."""
