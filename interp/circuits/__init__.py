"""Inside heads: what they attend to, what they write, and what that adds to the logits."""
