"""The demonstration: its numbers are the input file's."""
