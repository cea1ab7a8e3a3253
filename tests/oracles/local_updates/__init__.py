"""Slow twins of the local updates: what one worker sends, and its training loss.

``loss(params, inputs, labels)`` is a scalar tensor that autograd can differentiate, ``params [d]`` those of the server.
"""

SIGNATURE = "(loss, params, inputs, labels)"
