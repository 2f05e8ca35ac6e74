"""Queries as people really type them: from the command line, files and data sets.

``parser`` takes apart the text that a person typed and loses nothing. ``sources`` reads many queries. ``dedup`` finds
near-duplicates among them, and ``splits`` assigns each to a part of a split.
"""

from promptreel.queries.dedup import NearDuplicates
from promptreel.queries.parser.flag_names import FLAGS
from promptreel.queries.parser.parse import MAX_WORDS, ask_for, parse_query
from promptreel.queries.sources import read, read_file
from promptreel.queries.splits import split_of

__all__ = ["FLAGS", "MAX_WORDS", "NearDuplicates", "ask_for", "parse_query", "read", "read_file", "split_of"]
