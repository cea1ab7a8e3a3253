"""The contract of an attack: every registered one, every check."""

import math

import oracles
import pytest
import torch
from inputs import draw_from, examples, unequal_vectors

from pipeline.attacks import ATTACKS, AttackContext, Crafted, DataAttack, TunableAttack, VectorAttack
from pipeline.core.errors import UserError
from pipeline.core.rng import Stream

DEFAULTS = examples(ATTACKS)
FIELDS = {  # examples of other parameters, on which every check runs as well
    "sign_flip own": {"own": True},
    "alie plus": {"sign": 1},
    "bit_flip plain": {"momentum": False},
    "alie n": {"z_formula": "(n-s)/n"},
    "optimal_alie plus": {"sign": 1},
    "min_max sign": {"dev": "sign"},
    "min_max sd": {"dev": "sd"},
    "min_sum sign": {"dev": "sign"},
    "min_sum sd": {"dev": "sd"},
    "mimic target": {"warmup": 0, "target": 1},
    "mimic long": {"warmup": 50},
    "rop elsewhere": {"pi": 0.3, "lambda_": 0.5, "angle": 40.0},
}
VARIANTS = {label: ATTACKS[label.split()[0]](**fields) for label, fields in FIELDS.items()}
ALL = {**DEFAULTS, **VARIANTS}
VECTOR = {label: attack for label, attack in ALL.items() if isinstance(attack, VectorAttack)}
TUNABLE = {label: attack for label, attack in ALL.items() if isinstance(attack, TunableAttack)}
DATA = {label: attack for label, attack in ALL.items() if isinstance(attack, DataAttack)}
EVERY_VECTOR_ATTACK = pytest.mark.parametrize("attack", VECTOR.values(), ids=VECTOR)
EVERY_TUNABLE_ATTACK = pytest.mark.parametrize("attack", TUNABLE.values(), ids=TUNABLE)
EVERY_DATA_ATTACK = pytest.mark.parametrize("attack", DATA.values(), ids=DATA)


def mean_defence(vectors):
    return vectors.mean(dim=-2)


def context_of(honest, byzantine, strength=1.0, first=0, step=0, previous=None, defence=mean_defence):
    """What the adversary sees; ``first`` is the replica with which the honest vectors begin, strength a number or one
    for every replica."""
    strengths = torch.tensor(strength, dtype=honest.dtype)
    replicas = honest.shape[-3] if honest.dim() > 2 else 1
    return AttackContext(
        byzantine=byzantine,
        tolerated=byzantine,
        step=step,
        strength=strengths[:, None, None] if strengths.dim() else strengths,
        previous=torch.zeros_like(honest[..., 0, :]) if previous is None else previous,
        defence=defence,
        stream=Stream.of(range(first, first + replicas), "attack"),
    )


class ReadsItself(TunableAttack):
    """What an author may write first; in a batch it would give every replica the strength of the first."""

    name: str = "reads_itself"
    knowledge = "nothing"
    parameter: str

    def literature(self, n, f):
        return (1.0,)

    def _craft(self, honest, context, state):
        return Crafted(getattr(self, self.parameter) * honest[..., : context.byzantine, :], state)


@pytest.mark.parametrize("parameter", ["strength", "start", "ramp"])
def test_an_attack_that_reads_what_differs_in_a_batch_from_itself_is_stopped(parameter):
    attack = ReadsItself(strength=2.0, parameter=parameter)
    assert (attack.strength, attack.start, attack.ramp) == (2.0, 0, 0)
    with pytest.raises(AttributeError, match=rf"ReadsItself\._craft reads self\.{parameter}, .* is context\.strength"):
        craft(attack, unequal_vectors(5, 3), 2)
    with pytest.raises(AttributeError, match="no attribute 'strenght'"):
        craft(attack.replace(parameter="strenght"), unequal_vectors(5, 3), 2)


def craft(attack, honest, byzantine, strength=1.0, **changes):
    context = context_of(honest, byzantine, strength, **changes)
    return attack.craft(honest, context, attack.init_state(honest)).vectors


def expected_vectors(attack, honest, byzantine, strength, **given):
    """What the slow twin of the attack sends for ``honest [1, h, d]``, with the draws of the attack's own stream."""
    seen = {
        "draw": draw_from(context_of(honest, byzantine).stream),
        "previous": [0.0] * honest.shape[-1],
        "tolerated": byzantine,
        "defence": lambda vectors: oracles.twin("aggregators", "mean")(vectors, 0),
        **attack.content(),
        **given,
    }
    fields = {name: value for name, value in seen.items() if name not in ("name", "strength")}
    sent = oracles.twin("attacks", attack.name)(honest[0].tolist(), strength, byzantine, **fields)
    return torch.tensor(sent, dtype=torch.float64)[None]


def sends_numbers(attack):
    """Whether the attack, as its slow twin says, sends no NaN and no infinity."""
    return bool(expected_vectors(attack, unequal_vectors(1, 5, 4), 2, 3.0).isfinite().all())


@pytest.mark.parametrize("attack", ALL.values(), ids=ALL)
def test_metadata(attack):
    assert attack.formula
    assert attack.reference
    assert attack.knowledge
    assert ATTACKS.parse(attack.content(), "attack") == attack


@EVERY_VECTOR_ATTACK
@pytest.mark.parametrize(("h", "d"), [(2, 1), (5, 3), (12, 7), (20, 2)])
@pytest.mark.parametrize("strength", [1.0, 1.3, 17.0])
def test_oracle(attack, h, d, strength):
    honest = unequal_vectors(1, h, d)
    try:
        expected = expected_vectors(attack, honest, 3, strength)
    except oracles.NoAnswer as reason:
        pytest.skip(str(reason))
    options = {"equal_nan": True}
    torch.testing.assert_close(craft(attack, honest, 3, strength), expected, rtol=1e-9, atol=1e-9, **options)
    single = craft(attack, honest.float(), 3, strength)
    torch.testing.assert_close(single, expected.float(), rtol=2e-4, atol=2e-4, **options)


@EVERY_TUNABLE_ATTACK
def test_strength_differs_between_replicas(attack):
    honest, strengths = unequal_vectors(3, 6, 4), [1.2, 1.9, 9.0]
    together = craft(attack, honest, 2, strengths)
    assert together.shape == (3, 2, 4)
    for replica, strength in enumerate(strengths):
        alone = craft(attack, honest[replica : replica + 1], 2, [strength], first=replica)
        assert torch.equal(together[replica], alone[0])
    assert not torch.equal(craft(attack, honest, 2, [1.0, 1.0, 1.0])[0], together[0])


@pytest.mark.company
@EVERY_VECTOR_ATTACK
@pytest.mark.parametrize("step", [0, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_crafted_vectors_do_not_depend_on_batch_mates(attack, step, dtype):
    replicas, d = 9, 1410
    honest = unequal_vectors(replicas, 12, d, dtype=dtype)
    honest[4], honest[-2] = torch.inf, torch.nan
    previous = unequal_vectors(replicas, d, seed=1, dtype=dtype)
    together = craft(attack, honest, 5, [1.5] * replicas, step=step, previous=previous)
    for first, size in [(0, 1), (0, 3), (3, 3), (replicas - 1, 1)]:
        piece = slice(first, first + size)
        seen = {"first": first, "step": step, "previous": previous[piece]}
        alone = craft(attack, honest[piece], 5, [1.5] * size, **seen)
        assert torch.equal(alone.nan_to_num(nan=7.0), together[piece].nan_to_num(nan=7.0))


@EVERY_VECTOR_ATTACK
def test_equal_honest_vectors(attack):
    """Where the honest vectors agree on v there is no spread to hide in: v itself, or a multiple of it."""
    vector = unequal_vectors(1, 1, 4)
    crafted = craft(attack, vector.expand(1, 5, 4).clone(), 2, 3.0)
    multiples = {"sign_flip": -3.0, "ipm": -3.0, "optimal_ipm": -100.0, "zero": 0.0}
    hidden = {"alie", "optimal_alie", "min_max", "min_sum", "mimic"}
    if attack.name in multiples or attack.name in hidden:
        expected = multiples.get(attack.name, 1.0) * vector
        torch.testing.assert_close(crafted, expected.expand(1, 2, 4))
    assert crafted.isfinite().all() or not sends_numbers(attack)


@EVERY_VECTOR_ATTACK
def test_honest_vectors_of_zero(attack):
    """As from a model that has stopped learning: no direction to normalise, and nothing that is not finite."""
    crafted = craft(attack, torch.zeros(1, 5, 4), 2)
    assert crafted.isfinite().all() or not sends_numbers(attack)


@EVERY_VECTOR_ATTACK
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_purity(attack, dtype):
    honest = unequal_vectors(2, 5, 4, dtype=dtype)
    before = honest.clone()
    context = context_of(honest, 1, [1.5, 1.5])
    state = attack.init_state(honest)
    first = attack.craft(honest, context, state).vectors
    assert first.dtype == dtype
    assert first.device == honest.device
    kept = first.clone()
    first.fill_(123.0)
    assert torch.equal(honest, before)
    again = attack.craft(honest, context, state).vectors
    assert torch.equal(again.nan_to_num(nan=7.0), kept.nan_to_num(nan=7.0))


@EVERY_VECTOR_ATTACK
@pytest.mark.parametrize("batch", [(1,), (2,), (2, 3)], ids=str)
def test_shapes(attack, batch):
    for byzantine in (0, 1, 4, 7):
        honest = unequal_vectors(*batch, 5, 7)
        result = attack.craft(honest, context_of(honest, byzantine), attack.init_state(honest))
        assert isinstance(result, Crafted), "_craft should return Crafted(vectors, state)"
        assert result.vectors.shape == (*batch, byzantine, 7), "of honest [..., h, d] it should make [..., b, d]"
    if not attack.random:
        assert craft(attack, unequal_vectors(5, 7), 2).shape == (2, 7)


@EVERY_VECTOR_ATTACK
def test_only_declared_attacks_draw(attack):
    honest = unequal_vectors(1, 5, 4)
    one, other = (craft(attack, honest, 2, 2.0, first=first) for first in (0, 1))
    drew = not torch.equal(one.nan_to_num(nan=7.0), other.nan_to_num(nan=7.0))
    assert drew <= attack.random
    assert drew or attack.name not in ("fang", "gaussian")


def twins_strength(attack, n, f):
    """The default strength that the slow twin knows."""
    twin = oracles.twin("attacks", attack.name)
    hint = f"tests/oracles/attacks/: say below the slow twin `{attack.name}.default_strength = lambda n, f, **_: 1.0`"
    assert hasattr(twin, "default_strength"), hint
    return twin.default_strength(n, f, **attack.content())


@EVERY_TUNABLE_ATTACK
@pytest.mark.parametrize(("n", "f"), [(7, 2), (17, 5), (25, 5), (20, 4), (50, 12)])
def test_default_strength(attack, n, f):
    expected = twins_strength(attack, n, f)
    if expected is None:
        assert attack.literature(n, f) == ()
    else:
        assert attack.resolved(n, f).strength == attack.literature(n, f)[0] == pytest.approx(expected, rel=1e-9)
    low, high = attack.strengths
    assert 0 < low < high
    assert attack.replace(strength=1.7).resolved(n, f).strength == 1.7


def test_alie_strengths_of_the_catalogue():
    assert ALL["alie"].literature(25, 5) == pytest.approx((0.253, 0.468, 1.5), abs=5e-4)
    assert ALL["alie n"].literature(25, 5) == pytest.approx((0.468, 0.253, 1.5), abs=5e-4)


@pytest.mark.parametrize(("n", "f"), [(20, 2), (20, 0), (17, 0), (8, 1), (17, 9), (9, 5)])
@pytest.mark.parametrize("name", ["alie", "rop"])
def test_alie_and_rop_without_a_default_ask_for_a_number(name, n, f):
    with pytest.raises(UserError, match=rf"strength = None: {name} .* n = {n}, f = {f}; give a number"):
        ALL[name].resolved(n, f)
    assert twins_strength(ALL[name], n, f) is None
    assert ALL[name].replace(strength=1.5).resolved(n, f).strength == 1.5


@EVERY_TUNABLE_ATTACK
@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan"), float("inf"), "1", True])
def test_a_strength_is_a_positive_number(attack, strength):
    with pytest.raises(UserError, match=r"^attack\.strength = "):
        ATTACKS.parse({"name": attack.name, "strength": strength}, "attack")


@pytest.mark.parametrize("name", sorted(set(VECTOR) & set(DEFAULTS) - set(TUNABLE)))
def test_an_attack_without_a_strength_takes_none(name):
    with pytest.raises(UserError, match=r"^attack\.strength = .*unknown key"):
        ATTACKS.parse({"name": name, "strength": 1.0}, "attack")


@pytest.mark.parametrize(
    ("name", "field", "wrong"),
    [
        ("sign_flip", "own", 1),
        ("alie", "sign", 0),
        ("alie", "z_formula", "m"),
        ("optimal_alie", "sign", 2),
        ("fang", "strength", 0.9),
        ("min_max", "dev", "std"),
        ("mimic", "warmup", -1),
        ("mimic", "target", -1),
        ("mimic", "warmup", 1.5),
        ("rop", "pi", 1.1),
        ("rop", "lambda_", -0.1),
        ("rop", "angle", math.nan),
    ],
)
def test_a_wrong_field_is_told(name, field, wrong):
    with pytest.raises(UserError, match=rf"^attack\.{field} = "):
        ATTACKS.parse({"name": name, field: wrong}, "attack")


@EVERY_DATA_ATTACK
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_poison(attack, classes):
    labels = torch.arange(classes).repeat(3)
    before = labels.clone()
    poisoned = attack.poison(labels, classes)
    assert poisoned.tolist() == oracles.twin("attacks", attack.name)(labels.tolist(), classes)
    assert torch.equal(labels, before)
    assert torch.equal(attack.poison(labels.view(3, -1), classes), poisoned.view(3, -1))
