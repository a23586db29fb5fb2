"""The browser app: `main.py` is run by path; it uses the public API of interp and probes, and nothing imports it."""
