"""Slow twins of the attacks: what the Byzantine workers send, or the labels on which they train.

Besides its parameters a twin may take, by name, ``step``, ``previous`` (the aggregate of the step before), ``earlier``
(the honest vectors of all steps before), ``defence`` (from a list of vectors to a vector), ``tolerated`` and ``draw``;
``**_`` takes the rest. The twin of an attack with a strength carries its default as an attribute, a function of n, f
and, by name, the parameters: None where there is none.
"""

SIGNATURE = "(honest, strength, byzantine, **_)` or, for a data attack, `(labels, classes)"
