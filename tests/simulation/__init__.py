"""The whole shop, simulated: the real loops, one thread, one seed."""
