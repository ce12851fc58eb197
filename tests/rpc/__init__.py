"""RPC as clients see it, byte by byte."""
