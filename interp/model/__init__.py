"""The forward pass: configs, layers, stacks, taps and caches."""
