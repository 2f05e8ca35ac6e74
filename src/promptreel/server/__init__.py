"""The rewriter behind HTTP, in the words of OpenAI's chat completions: text in, text out.

``wire`` is what goes over the line, ``batching`` makes one model call of many waiting requests, ``app`` answers, and
``listen`` opens the port and ends in order.
"""
