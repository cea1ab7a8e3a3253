"""Slow twins of the models: the logits of ``images [B, C, H, W]``, with parameters read front to back by ``take``.

``take.linear``, ``take.conv`` and ``take.normalise`` are layers with the next of the parameters (``reader.py``).
"""

SIGNATURE = "(take, images, classes)"
