"""Readers for files that researchers have on disk, and how a model does on what they hold."""

from interp.readers.blimp import MinimalPair, MinimalPairs, read_blimp
from interp.readers.conllu import ParsedSentence, Treebank, Word, read_conllu
from interp.readers.facts import Fact, Facts, read_facts
from interp.readers.lines import Problem
from interp.readers.winogender import Winogender, WinogenderSentence, read_winogender

__all__ = [
    "Fact",
    "Facts",
    "MinimalPair",
    "MinimalPairs",
    "ParsedSentence",
    "Problem",
    "Treebank",
    "Winogender",
    "WinogenderSentence",
    "Word",
    "read_blimp",
    "read_conllu",
    "read_facts",
    "read_winogender",
]
