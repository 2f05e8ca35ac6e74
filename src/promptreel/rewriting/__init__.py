"""From a query to prompts: write, check, redraw, choose, preview."""

from promptreel.rewriting.rewriter import Rewriter

__all__ = ["Rewriter"]
