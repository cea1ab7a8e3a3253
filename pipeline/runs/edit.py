"""Changing params.yaml while its comments survive: single values, or a whole overlay."""

import io
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scanner import Scanner

from pipeline.core.component import allowed
from pipeline.core.errors import UserError, shown
from pipeline.core.files import write_text
from pipeline.runs.params import Params, parsed, read_yaml, validate

ENTRIES = ("partitions", "defences", "attacks", "studies")  # sections of named entries


def override(path: Path, changes: str) -> None:
    """Change values in params.yaml, keeping its comments; nothing is written unless the whole file stays valid.

    Args:
        path: Of params.yaml.
        changes: ``path=value`` pairs separated by blanks, the values in YAML: ``training.steps=50 grid.seeds=[0,1]``.
            None at all leaves the file as it is.

    Raises:
        UserError: A path that does not exist, a value that is not YAML, or parameters that are not valid together.
    """
    if not changes.strip():
        return
    document = _sections(path, _round_trip())
    for change in changes.split():
        _assign(document, *change.partition("=")[::2])
    write_text(path.resolve(), _valid_text(document))  # a link stays one


def _assign(document: Any, where: str, value: str) -> None:
    if not value:
        raise UserError(f"{where}: should be path=value, as in training.steps=50, without blanks")
    keys, holder, found = where.split("."), document, document
    for depth, key in enumerate(keys):
        holder, above = found, ".".join(keys[:depth]) or "params.yaml"
        if not isinstance(holder, MutableMapping):
            raise UserError(f"{where}: {above} = {shown(holder)} has no keys; set it as a whole")
        if key not in holder:
            raise UserError(f"{where}: no key {key!r} in {above}; {allowed(key, map(str, holder))}")
        found = holder[key]
    try:
        holder[keys[-1]] = parsed(value, YAML())
    except ValueError:
        raise UserError(f"{where}={value}: the value is not YAML; write it without blanks, as in [0,1]") from None


def apply(path: Path, overlay: Path) -> None:
    """Merge an overlay into params.yaml, keeping the comments of params.yaml; all or nothing is written.

    Mappings are merged key by key. Everything else replaces what stands in params.yaml: a list, a plain value, a
    component (a mapping with a ``name``), and an entry of ``partitions``, ``defences``, ``attacks`` or ``studies``.

    Args:
        path: Of params.yaml.
        overlay: A YAML file with what differs, or a folder that holds one under the name params.yaml.

    Raises:
        UserError: A file cannot be read, or the result is not valid.
    """
    write_text(path.resolve(), _merged(path, overlay))


def overlaid(path: Path, overlay: Path) -> Params:
    """Return the parameters that :func:`apply` would write.

    Raises:
        UserError: A file cannot be read, or the result is not valid.
    """
    return validate(YAML(typ="safe").load(_merged(path, overlay)))


def _merged(path: Path, overlay: Path) -> str:
    """Return params.yaml with the overlay."""
    without_comments = YAML()
    without_comments.Scanner = Scanner
    changes_path = overlay / "params.yaml" if overlay.is_dir() else overlay
    document = _sections(path, _round_trip())
    _merge(document, _sections(changes_path, without_comments), entries=False)
    return _valid_text(document)


def _sections(path: Path, yaml: YAML) -> Any:
    document = read_yaml(path, yaml)
    if not isinstance(document, Mapping):
        raise UserError(f"{path}: should be a mapping of sections")
    return document


def _merge(section: Any, changes: Mapping[str, Any], entries: bool) -> None:
    """Merge ``changes`` into a mapping, whose values are replaced whole if they are ``entries``."""
    added = 0
    for key, value in changes.items():
        inner = section.get(key)
        if isinstance(value, Mapping) and isinstance(inner, Mapping) and not entries and "name" not in value:
            _merge(inner, value, entries=key in ENTRIES)
        elif key in section:
            section[key] = value
        else:  # goes to the front: the comment below the last entry belongs to the next section
            section.insert(added, key, value)
            added += 1


class _Representer(RoundTripRepresenter):
    """Writes null as null, not as nothing."""


_Representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))


def _round_trip() -> YAML:
    """Return what reads and writes YAML with its comments and its layout."""
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True
    yaml.brace_single_entry_mapping_in_flow_sequence = True
    yaml.Representer = _Representer
    return yaml


def _valid_text(document: Any) -> str:
    """Return the content of params.yaml as text.

    Raises:
        UserError: It is not valid.
    """
    text = io.StringIO()
    _round_trip().dump(document, text)
    try:
        validate(parsed(text.getvalue(), YAML(typ="safe")))
    except ValueError as error:  # a tag, say, which may be copied but not understood
        raise UserError(f"params.yaml would not be YAML: {error}") from None
    return text.getvalue()
