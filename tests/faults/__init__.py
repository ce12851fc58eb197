"""Faults on the real stack under load, each counted and proven to have bitten; what came of it is judged by the checker."""
