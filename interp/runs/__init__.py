"""Stored runs: one folder each, with what was found and how it was made; listed and reopened without a model."""
