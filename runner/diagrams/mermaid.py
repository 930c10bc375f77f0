"""A diagram in Mermaid's language, which GitHub, GitLab and editors draw (https://mermaid.js.org)."""

from __future__ import annotations

import json
from collections.abc import Iterator

from runner.diagrams.diagram import Diagram, Node

_ESCAPED = {ord(character): f"#{ord(character)};" for character in '"#&<>`'}


def mermaid(diagram: Diagram) -> str:
    """The diagram as a flow chart, from left to right, each line with its line break."""
    return "".join(f"{line}\n" for line in _lines(diagram))


def _lines(diagram: Diagram) -> Iterator[str]:
    title = json.dumps(" · ".join([diagram.title, *diagram.facts]), ensure_ascii=False)
    yield from ("---", f"title: {title}", "---", "flowchart LR")
    ids = {name: f"s{number}" for number, name in enumerate(diagram.nodes)}
    for name, node in diagram.nodes.items():
        opening, closing = ("[[", "]]") if node.is_many else ("[", "]")
        yield f'  {ids[name]}{opening}"{_label(node)}"{closing}'
    for name, needed in diagram.needs.items():
        arrow = "-.->" if diagram.nodes[name].is_conditional else "-->"
        yield from (f"  {ids[other]} {arrow} {ids[name]}" for other in needed)


def _label(node: Node) -> str:
    parts = [f"<b>{node.name}</b>", *(text.translate(_ESCAPED) for text in (node.runs, *node.facts))]
    return "<br/>".join(parts)
