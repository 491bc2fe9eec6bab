"""Sweeps: one recipe trained with different values, as trials that are ordinary runs."""
