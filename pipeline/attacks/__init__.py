"""Attacks. Every module of this package registers its own by being imported."""

from pipeline.attacks.base import Attack, AttackContext, Crafted, DataAttack, TunableAttack, VectorAttack
from pipeline.core.component import Registry
from pipeline.core.space import Choice, Range, Space

ATTACKS: Registry[Attack] = Registry("attack")
ATTACKS.import_families(__name__, __path__)

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackContext",
    "Choice",
    "Crafted",
    "DataAttack",
    "Range",
    "Space",
    "TunableAttack",
    "VectorAttack",
]
