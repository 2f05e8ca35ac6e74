"""The rewriter over HTTP, in the protocol of OpenAI's chat completions.

``schemas`` holds requests and responses, ``batching`` makes one model call of many waiting requests, ``app`` answers
them, and ``run`` opens the port and ends in order.
"""
