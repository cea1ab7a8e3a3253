"""Named, typed, frozen components: the objects that a name in params.yaml stands for."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, TypeAdapter, ValidationError, model_validator
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails, PydanticCustomError, core_schema

from pipeline.core.errors import UserError, nearest, shown

MOST_FLOAT, MOST_INT = 3.4e38, 2**53  # what float32 holds, and up to where float64 holds every whole number


class Schema(BaseModel):
    """A frozen parameter schema: strict types, no unknown key, no NaN or infinity, no number too large for tensors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    def content(self) -> dict[str, Any]:
        """Return the validated values with their defaults resolved, as JSON types."""
        return self.model_dump(mode="json")

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with some fields changed."""
        return type(self).model_validate({**dict(self), **changes})

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any, validate: Callable[[Any], Self]) -> Self:
        """Report unknown keys, with the nearest valid one, beside every other fault of this mapping."""
        faults = _unknown_keys(value, list(cls.model_fields)) if isinstance(value, Mapping) else []
        try:
            parsed = validate(value)
        except ValidationError as error:
            for e in error.errors():
                message = _fault(e["type"], e["msg"], e.get("ctx"))
                faults.append(InitErrorDetails(type=message, loc=e["loc"], input=e["input"]))
        else:
            faults += _too_large(dict(parsed))
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return parsed


def _too_large(value: Any, *path: str | int) -> Iterator[InitErrorDetails]:
    """Yield the fault of every number in ``value``, a field's or one in a tuple or mapping, that is too large."""
    if isinstance(value, Mapping | tuple):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _too_large(inner, *path, key)
    elif isinstance(value, int | float):
        most = MOST_INT if isinstance(value, int) else MOST_FLOAT
        if abs(value) > most:
            yield InitErrorDetails(type=_fault("too_large", f"should be at most {most:g}"), loc=path, input=value)


def _unknown_keys(value: Mapping[str, Any], valid: list[str]) -> list[InitErrorDetails]:
    return [
        InitErrorDetails(
            type=_fault("unknown_key", f"unknown key; {allowed(key, valid)}"), loc=(str(key),), input=found
        )
        for key, found in value.items()
        if key not in valid
    ]


def _fault(kind: str, message: str, context: dict[str, Any] | None = None) -> PydanticCustomError:
    return PydanticCustomError(kind, message, context)


def allowed(value: object, valid: Iterable[str]) -> str:
    """Return ``one of 'a', 'b' - did you mean 'a'?``."""
    names = list(valid)
    return f"one of {', '.join(map(repr, names))}{nearest(value, names)}"


class Component(Schema):
    """One algorithm: fields are its parameters, class attributes its metadata, methods its mathematics.

    A subclass declares ``name: Literal["..."] = "..."``, the name that params.yaml uses.
    """

    name: str
    formula: ClassVar[str] = ""
    reference: ClassVar[str] = ""


C = TypeVar("C", bound=Component)


class Registry(Generic[C]):
    """A mapping from names to the component classes of one kind (aggregation rules, attacks, ...).

    As an annotation, ``Annotated[Aggregator, AGGREGATORS]`` is a field that holds any registered rule, chosen by
    its ``name``.

    Example:
        >>> from typing import Literal
        >>> TOYS: Registry[Component] = Registry("toy")
        >>> @TOYS.register
        ... class Ball(Component):
        ...     name: Literal["ball"] = "ball"
        ...     size: int = 1
        >>> TOYS.parse({"name": "ball", "size": 3}, "toys.mine")
        Ball(name='ball', size=3)
        >>> TOYS.parse({"name": "bal"}, "toys.mine")
        Traceback (most recent call last):
        pipeline.core.errors.UserError: toys.mine.name = 'bal': unknown name; one of 'ball' - did you mean 'ball'?
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type[C]] = {}
        self._in_use = False  # whether some schema was built of the classes that there are

    def register(self, cls: type[C]) -> type[C]:
        """File ``cls`` under its ``name``; a class decorator.

        In a notebook a class may come late, and again: its cell is run after the first simulation, and run once more
        after each change.

        Raises:
            TypeError: The class lacks a name, or what every component of this kind must define.
            ValueError: The name is taken.
        """
        name = cls.model_fields["name"].default
        if _names(cls) != (name,):
            raise TypeError(f'the {self.kind} {cls.__name__} needs a name: `name: Literal["my_name"] = "my_name"`')
        undefined = {attribute for attribute in cls.__class_vars__ if not hasattr(cls, attribute)}
        if missing := sorted(cls.__abstractmethods__ | undefined):
            raise TypeError(f"the {self.kind} {name!r} ({cls.__name__}) must define {', '.join(missing)}")
        known = self._classes.get(name)
        if known and not known.__module__ == cls.__module__ == "__main__":
            raise ValueError(f"two classes for the {self.kind} {name!r}: {known} and {cls}")
        self._classes[name] = cls
        if self._in_use:
            _rebuild(Schema)
        return cls

    @property
    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._classes)

    def __getitem__(self, name: str) -> type[C]:
        return self._classes[name]

    def parse(self, value: Any, path: str) -> C:
        """Return the validated object for the mapping ``{"name": ..., ...}`` that stands at ``path``.

        Raises:
            UserError: Lists every fault with its path, its value and what would be allowed.
        """
        parsed: C = parse(Annotated[Component, self], value, path)
        return parsed

    def import_families(self, package: str, path: Iterable[str]) -> None:
        """Import every module of ``package``, so that a rule in a new file is found without being listed.

        Raises:
            TypeError: A class in one of them has a name but is not registered.
        """
        for entry in pkgutil.iter_modules(path):
            module = importlib.import_module(f"{package}.{entry.name}")
            for cls in vars(module).values():
                here = inspect.isclass(cls) and cls.__module__ == module.__name__
                if here and _names(cls) and cls not in self._classes.values():
                    registry = [name for name, value in vars(sys.modules[package]).items() if value is self]
                    raise TypeError(
                        f"{module.__file__}: the {self.kind} {cls.__name__} is not registered; "
                        f"it needs the decorator @{registry[0]}.register"
                    )

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        self._in_use = True
        choices = {name: handler.generate_schema(cls) for name, cls in sorted(self._classes.items())}
        # A process that trains is sent objects, of classes that a notebook's own registry may be alone to know.
        as_it_is = core_schema.simple_ser_schema("any")
        return core_schema.tagged_union_schema(choices, discriminator=_name_of, serialization=as_it_is)


def _rebuild(schema: type[Schema]) -> None:
    """Build the schemas below ``schema`` anew, in the order of their definition, as they may hold each other."""
    for cls in schema.__subclasses__():
        if not issubclass(cls, Component):
            cls.model_rebuild(force=True)
            _rebuild(cls)


def _names(cls: type) -> tuple[Any, ...]:
    """Return what ``name`` may be in a class of components: one name, or nothing in a base class or any other class."""
    return get_args(cls.model_fields["name"].annotation) if issubclass(cls, Component) else ()


def _name_of(value: Any) -> str:
    name = value.get("name", "") if isinstance(value, Mapping) else getattr(value, "name", "")
    return str(name)


def parse(annotation: Any, value: Any, path: str) -> Any:
    """Validate ``value`` against a type annotation.

    Raises:
        UserError: Lists every fault, a line each: ``path = value: what is wrong; what is allowed``.
    """
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        raise UserError("\n".join(_explain(fault, value, path) for fault in error.errors())) from None


def _explain(fault: ErrorDetails, raw: Any, path: str) -> str:
    where = ".".join([path, *_keys(fault["loc"], raw)]).strip(".")
    if fault["type"] == "missing":
        return f"{where}: missing"
    if fault["type"] != "union_tag_invalid":
        message = fault["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
        value = "" if isinstance(fault["input"], Schema) else f" = {shown(fault['input'])}"
        return f"{where}{value}: {message}"
    name, valid = fault["ctx"]["tag"], fault["ctx"]["expected_tags"].replace("'", "").split(", ")
    if not name:
        return f"{where} = {shown(fault['input'])}: should be a mapping with a name; {allowed(name, valid)}"
    return f"{where}.name = {name!r}: unknown name; {allowed(name, valid)}"


def _keys(location: tuple[int | str, ...], raw: Any) -> list[str]:
    """Return the keys of ``location`` that stand in params.yaml; pydantic puts the chosen names between them."""
    keys: list[str] = []
    for position, key in enumerate(location):
        if isinstance(raw, Mapping) and key not in raw and position < len(location) - 1:
            continue
        keys.append(str(key))
        raw = raw.get(key) if isinstance(raw, Mapping) else raw[int(key)] if isinstance(raw, list) else None
    return keys
