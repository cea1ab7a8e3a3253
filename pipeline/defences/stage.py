"""What a pre-aggregation and an aggregation rule have in common: for which n and f they are defined."""

import re
from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from pipeline.core.component import Component
from pipeline.core.errors import UserError


class DefenceStage(Component):
    """A map of n vectors, of which f may be arbitrary.

    ``condition`` is what ``tolerates`` tests, as text: comparisons joined by "and", where 2f is 2 * f and C(n, f) the
    number of subsets. 0 <= f < n is always meant besides, and a comparison with a parameter that is null does not
    count. ``exceptions`` names the checks of the contract (in the tests) that the map cannot pass, each with the
    reason. ``random`` is True for a map that draws from the stream.
    """

    condition: ClassVar[str]
    exceptions: ClassVar[dict[str, str]] = {}
    random: ClassVar[bool] = False

    @abstractmethod
    def tolerates(self, n: int, f: int) -> bool:
        """Return whether the map is defined for n vectors of which f are arbitrary."""

    def unmet(self, n: int, f: int) -> str | None:
        """Return the condition that n vectors, f of them arbitrary, do not meet; None if they meet it."""
        if self.tolerates(n, f):
            return None
        given = {name: value for name, value in self if value is not None and re.search(rf"\b{name}\b", self.condition)}
        got = ", ".join(f"{name} = {value}" for name, value in {"n": n, "f": f, **given}.items())
        return f"{self.name} needs {self.condition}, got {got}"

    def refuse_unmet(self, vectors: Tensor, f: int) -> None:
        """Raise a UserError unless the map is defined for ``vectors [..., n, d]`` and f."""
        if unmet := self.unmet(vectors.shape[-2], f):
            raise UserError(unmet)
