"""Names, schemas and messages."""

import importlib
from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, Field, ValidationError

from pipeline.core.component import Component, Registry, Schema, parse
from pipeline.core.errors import UserError, nearest
from pipeline.defences.aggregators import Aggregator

TOYS: Registry[Component] = Registry("toy")


@TOYS.register
class Ball(Component):
    name: Literal["ball"] = "ball"
    size: int = Field(1, ge=1)
    weight: float = 0.5
    labels: Annotated[tuple[str, ...], Field(strict=False)] = ()


def refuse_braces(text):
    if "{" in text:
        raise ValueError(f"no braces, as in {text}")
    return text


@TOYS.register
class Kite(Component):
    name: Literal["kite"] = "kite"
    tail: float = Field(gt=0)
    colour: Annotated[str, AfterValidator(refuse_braces)] = ""


class Box(Schema):
    toys: Annotated[tuple[Annotated[Component, TOYS], ...], Field(strict=False)]
    best: Annotated[Component, TOYS]
    label: str = ""


def fault(value, path="toys.mine"):
    with pytest.raises(UserError) as caught:
        TOYS.parse(value, path)
    return str(caught.value)


def box_faults(value):
    with pytest.raises(UserError) as caught:
        parse(Box, value, "box")
    return str(caught.value).splitlines()


def test_a_name_selects_the_class_and_keys_are_its_fields():
    assert TOYS.parse({"name": "ball", "size": 3}, "toy") == Ball(size=3)
    assert TOYS.parse({"name": "kite", "tail": 2}, "toy") == Kite(tail=2.0)
    assert TOYS.names == ["ball", "kite"]
    assert TOYS["kite"] is Kite


def test_an_unknown_name_is_reported_with_the_nearest():
    message = "toys.mine.name = 'bal': unknown name; one of 'ball', 'kite' - did you mean 'ball'?"
    assert fault({"name": "bal"}) == message
    assert fault({"name": "zzz"}) == "toys.mine.name = 'zzz': unknown name; one of 'ball', 'kite'"


def test_an_unknown_key_is_reported_with_the_nearest():
    message = "toys.mine.sise = 3: unknown key; one of 'name', 'size', 'weight', 'labels' - did you mean 'size'?"
    assert fault({"name": "ball", "sise": 3}) == message


@pytest.mark.parametrize("key", ["{size}", "{", "}", "a.b", 1, 1.5, None, True, ("a", 1)], ids=str)
def test_any_key_can_be_reported(key):
    assert ": unknown key; one of 'name', 'tail', 'colour'" in fault({"name": "kite", "tail": 1.0, key: 3})


def test_a_message_of_a_validator_is_shown_as_it_is():
    message = fault({"name": "kite", "tail": 1.0, "colour": "{red} {"})
    assert message == "toys.mine.colour = '{red} {': no braces, as in {red} {"


def test_a_missing_field_is_named():
    assert fault({"name": "kite"}) == "toys.mine.tail: missing"


@pytest.mark.parametrize("value", ["ball", None, 3, [], ["ball"], {}, {"size": 3}, {"name": ""}], ids=str)
def test_what_is_not_a_mapping_with_a_name_says_so(value):
    message = fault(value)
    assert message.startswith(f"toys.mine = {value!r}: should be a mapping with a name; one of 'ball', 'kite'")


@pytest.mark.parametrize("name", [None, 3, True, ["ball"], "{x}", "a', 'b", "Ball"], ids=str)
def test_a_name_that_is_no_text_or_odd_is_unknown(name):
    message = fault({"name": name})
    assert message.startswith("toys.mine.name = ")
    assert ": unknown name; one of 'ball', 'kite'" in message


def test_all_faults_are_reported_at_once():
    message = fault({"name": "ball", "size": 0, "weight": "heavy", "colour": "red", "labels": [1]})
    lines = message.splitlines()
    assert sorted(line.split(" = ")[0] for line in lines) == [
        "toys.mine.colour",
        "toys.mine.labels.0",
        "toys.mine.size",
        "toys.mine.weight",
    ]
    assert any(line == "toys.mine.size = 0: should be greater than or equal to 1" for line in lines)


def test_faults_of_nested_components_name_their_place():
    value = {
        "toys": [{"name": "ball"}, {"name": "ball", "size": "3"}, {"name": "kit", "tail": 1.0}],
        "best": {"name": "kite", "tail": -1.0, "tial": 2.0},
        "lable": "x",
    }
    starts = ["box.best.tail = -1.0", "box.best.tial = 2.0", "box.lable = 'x'", "box.toys.1.size = '3'"]
    found = sorted(line.split(":")[0] for line in box_faults(value))
    assert found == [*starts, "box.toys.2.name = 'kit'"]


def test_an_object_that_is_parsed_already_is_accepted():
    value = {"toys": [Ball(size=2)], "best": Kite(tail=1.0)}
    assert parse(Box, value, "box").toys == (Ball(size=2),)


@pytest.mark.parametrize("size", ["3", True, 3.0, 3.5, None, 1e400, float("nan"), [3], 0], ids=str)
def test_an_integer_is_an_integer(size):
    assert fault({"name": "ball", "size": size}).startswith(f"toys.mine.size = {size!r}: ")


@pytest.mark.parametrize("weight", ["3", True, None, 1e400, -1e400, float("nan"), [3.0]], ids=str)
def test_a_number_is_a_finite_number(weight):
    assert fault({"name": "ball", "weight": weight}).startswith(f"toys.mine.weight = {weight!r}: ")


def test_a_whole_number_may_stand_for_a_real_one():
    assert TOYS.parse({"name": "ball", "weight": 3}, "toy").content()["weight"] == 3.0


def test_an_empty_path_is_left_out():
    assert fault({"name": "kite"}, path="") == "tail: missing"


def test_duplicates_are_refused():
    registry: Registry[Component] = Registry("toy")
    registry.register(Ball)
    with pytest.raises(ValueError, match="two classes for the toy 'ball'"):
        registry.register(Ball)


def test_a_class_without_a_name_is_refused():
    class Nameless(Component):
        pass

    class Renamed(Component):
        name: Literal["one"] = "other"

    for cls in (Nameless, Renamed):
        with pytest.raises(TypeError, match=rf'the toy {cls.__name__} needs a name: `name: Literal\["my_name"\]'):
            Registry("toy").register(cls)


PACKAGE = """
from pipeline.core.component import Registry
TOYS = Registry("toy")
TOYS.import_families(__name__, __path__)
"""
MODULE = """
from typing import Literal
from pipeline.core.component import Component

class Base(Component):
    pass

class Forgotten(Base):
    name: Literal["forgotten"] = "forgotten"
"""


def test_a_class_whose_decorator_was_forgotten_is_told(tmp_path, monkeypatch):
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "__init__.py").write_text(PACKAGE)
    (tmp_path / "toys" / "late.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    message = r"toys/late\.py: the toy Forgotten is not registered; it needs the decorator @TOYS\.register"
    with pytest.raises(TypeError, match=message):
        importlib.import_module("toys")


def test_a_class_that_lacks_a_method_is_refused():
    class Lacking(Aggregator):
        name: Literal["lacking"] = "lacking"

        def tolerates(self, n: int, f: int) -> bool:
            return True

    with pytest.raises(TypeError, match=r"the rule 'lacking' \(Lacking\) must define _aggregate, condition"):
        Registry("rule").register(Lacking)


def test_components_are_frozen_and_equal_by_value():
    ball = Ball(size=2)
    with pytest.raises(ValidationError, match="frozen"):
        ball.size = 3
    assert ball == Ball(size=2) != Ball(size=3)
    assert hash(ball) == hash(Ball(size=2))


def test_replace_validates():
    assert Ball(size=2).replace(weight=0.25) == Ball(size=2, weight=0.25)
    for change in ({"size": 0}, {"size": "3"}, {"sise": 3}):
        with pytest.raises(ValidationError):
            Ball(size=2).replace(**change)


def test_content_has_the_defaults_resolved_and_parses_back():
    content = Ball(size=2).content()
    assert content == {"name": "ball", "size": 2, "weight": 0.5, "labels": []}
    assert TOYS.parse(content, "toy") == Ball(size=2)


def test_nearest_ignores_what_is_far():
    assert nearest("krumm", ["krum", "mean"]) == " - did you mean 'krum'?"
    assert nearest("", ["krum", "mean"]) == nearest(None, ["krum", "mean"]) == ""
