"""Taking a concept out of activations: affine maps after which no linear probe finds it on the data they were fitted
on, LEACE with the least change, INLP step by step."""

from probes.erasure.eraser import Eraser
from probes.erasure.inlp import INLP
from probes.erasure.leace import LEACE

__all__ = ["INLP", "LEACE", "Eraser"]
