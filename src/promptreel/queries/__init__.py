"""Queries: what people really type, from the command line, files and data sets.

``parse`` takes apart what a person typed and loses nothing: ``cleaning`` knows what is left around a query, ``flags``
what is typed into it. ``sources`` reads many; ``likeness`` says which of them are the same but for a few words, and
which part of a split they belong to.
"""

from promptreel.queries.candidates import FLAGS
from promptreel.queries.likeness import Likeness, split_of
from promptreel.queries.parse import LONGEST, ask_for, parse_query
from promptreel.queries.sources import read, read_file

__all__ = ["FLAGS", "LONGEST", "Likeness", "ask_for", "parse_query", "read", "read_file", "split_of"]
