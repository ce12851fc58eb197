"""Contracts as law: the gate before every change, the releases it holds them against, the bytes that must be readable for ever."""
