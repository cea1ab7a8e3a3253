"""report.html: report.md as one file with its pictures and tables inside, for a browser and for MLflow."""

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from itertools import pairwise
from mimetypes import guess_type
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

LINKED = {"image": "src", "link_open": "href"}


class Heading(NamedTuple):
    """An entry of the table of contents."""

    level: int
    text: str
    anchor: str


def page(text: str, folder: Path) -> str:
    """Return report.md as an HTML page that needs no other file.

    Args:
        text: The content of report.md.
        folder: Where it stands, with the files that it names.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    title, *headings = _headings(tokens)
    _embed(tokens, folder)
    body = markdown.renderer.render(tokens, markdown.options, {})
    body = body.replace("<table>", '<div class="table" tabindex="0"><table>').replace("</table>", "</table></div>")
    environment = Environment(
        loader=PackageLoader("pipeline.report"), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    return environment.get_template("report.html.j2").render(title=title, headings=headings, body=Markup(body)) + "\n"


def _headings(tokens: Sequence[Token]) -> Iterator[Heading]:
    """Yield every heading, and give it the anchor that the table of contents links to."""
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            anchor = re.sub(r"\W+", "-", inline.content.lower())
            opening.attrSet("id", anchor)
            yield Heading(int(opening.tag[1]), inline.content, anchor)


def _embed(tokens: Sequence[Token], folder: Path) -> None:
    """Replace the address of every picture and table by its content; a table is saved by a click."""
    for token in tokens:
        _embed(token.children or [], folder)
        if token.type in LINKED:
            path = folder / str(token.attrGet(LINKED[token.type]))
            token.attrSet(LINKED[token.type], _data_uri(path))
            if token.type == "link_open":
                token.attrSet("download", path.name)


def _data_uri(path: Path) -> str:
    return f"data:{guess_type(path)[0]};base64,{b64encode(path.read_bytes()).decode()}"
