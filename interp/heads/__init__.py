"""Finding heads: one file per kind, each with a behaviour score, what the head writes, and what ablating it costs."""
