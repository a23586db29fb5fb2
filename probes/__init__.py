"""Estimators, controls and sweeps that ask what a representation holds; built on interp, never imported by it."""
