"""Inputs whose answer or structure is known, one file per task."""
