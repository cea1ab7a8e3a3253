"""What a pre-aggregation and an aggregation rule have in common: for which n and f they are defined."""

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from pipeline.core.component import Component
from pipeline.core.errors import UserError


class DefenceStage(Component):
    """A map of n vectors, of which f may be arbitrary.

    ``condition`` is what ``tolerates`` tests, in words. ``exceptions`` names the checks of the contract (in the tests)
    that the map cannot pass, each with the reason. ``random`` is True for a map that draws from the stream.
    """

    condition: ClassVar[str]
    exceptions: ClassVar[dict[str, str]] = {}
    random: ClassVar[bool] = False

    @abstractmethod
    def tolerates(self, n: int, f: int) -> bool:
        """Return whether the map is defined for n vectors of which f are arbitrary."""

    def unmet(self, n: int, f: int) -> str | None:
        """Return which condition n vectors, f of them arbitrary, do not meet; None where they do."""
        return None if self.tolerates(n, f) else f"{self.name} needs {self.condition}, got n = {n}, f = {f}"

    def refuse_unmet(self, vectors: Tensor, f: int) -> None:
        """Raise a UserError unless the map is defined for ``vectors [..., n, d]`` and f."""
        if unmet := self.unmet(vectors.shape[-2], f):
            raise UserError(unmet)
