"""A walk from a prompt to its answer, each step with the intervention that supports or contradicts it."""
