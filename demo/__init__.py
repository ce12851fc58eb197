"""The shop shown at work: real purchases placed with the whole platform, and the laws checked over what happened."""
