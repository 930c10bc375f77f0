"""A diagram as an SVG picture that stands alone, in light and in dark surroundings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from runner.diagrams.diagram import Diagram, Node
from runner.diagrams.layout import Box, Layout, lay_out

MARGIN, TITLE = 16, 30
ACROSS, DOWN = 48, 18
LINE = 16
"""From one line of text to the next."""
LONGEST = 40
"""Characters of a line that are shown."""
_PADDING = 12
_WIDE, _NARROW = 7.9, 6.7
"""What one character takes of a name (13 px) and of other text (11 px) in a monospaced face."""

_STYLE = """\
:root { color-scheme: light dark; --ink: #1f2328; --dim: #59636e; --line: #8c959f; --box: #f6f8fa; --edge: #d0d7de; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --dim: #9198a1; --line: #768390; --box: #161b22; --edge: #3d444d; }
}
text { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 11px; fill: var(--dim); }
.name { font-size: 13px; font-weight: 600; fill: var(--ink); }
.box { fill: var(--box); stroke: var(--edge); }
.way { fill: none; stroke: var(--line); stroke-width: 1.5; }
.maybe { stroke-dasharray: 4 3; }
.head { fill: var(--line); }
.succeeded .box { stroke: #1a7f37; } .failed .box { stroke: #d1242f; } .running .box { stroke: #0969da; }
.cancelled .box { stroke: #9a6700; } .skipped { opacity: 0.55; }
"""


def svg(diagram: Diagram) -> str:
    """The picture as a whole document."""
    texts = {name: _texts(node) for name, node in diagram.nodes.items()}
    sizes = {name: _size(lines, diagram.nodes[name]) for name, lines in texts.items()}
    layout = lay_out(diagram.needs, sizes, across=ACROSS, down=DOWN)
    title = " · ".join([diagram.title, *diagram.facts])
    width = max(layout.width, len(title) * _NARROW) + 2 * MARGIN
    height = layout.height + TITLE + 2 * MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{_STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path class="head" d="M0 0 L8 4 L0 8 z"/></marker></defs>',
            f'<text x="{MARGIN}" y="{MARGIN + 12}"><tspan class="name">{escape(diagram.title)}</tspan>'
            f"{''.join(f' · {escape(fact)}' for fact in diagram.facts)}</text>",
            f'<g transform="translate({MARGIN} {MARGIN + TITLE})">',
            *_ways(diagram, layout),
            *(_node(node, layout.boxes[name], texts[name]) for name, node in diagram.nodes.items()),
            "</g>",
            "</svg>\n",
        ]
    )


def _texts(node: Node) -> list[str]:
    return [_cut(text) for text in (node.name, node.runs, *node.facts)]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _size(lines: Sequence[str], node: Node) -> tuple[float, float]:
    width = max(len(lines[0]) * _WIDE, *(len(line) * _NARROW for line in lines[1:])) + 2 * _PADDING
    shadow = 6 if node.is_many else 0
    return width + shadow, len(lines) * LINE + 2 * _PADDING - 4 + shadow


def _node(node: Node, box: Box, lines: Sequence[str]) -> str:
    depth = 6 if node.is_many else 0
    width, height, top = box.width - depth, box.height - depth, box.y - box.height / 2 + depth
    backs = [_rectangle(box.x + back, top - back, width, height) for back in range(depth, 0, -3)]
    texts = []
    for number, line in enumerate(lines):
        y = top + _PADDING + 9 + number * LINE
        kind = "" if number else ' class="name"'
        texts.append(f'<text x="{box.x + _PADDING:.1f}" y="{y:.1f}"{kind}>{escape(line)}</text>')
    status = f' class="{escape(node.status)}"' if node.status else ""
    return "".join([f"<g{status}>", *backs, _rectangle(box.x, top, width, height), *texts, "</g>"])


def _rectangle(x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="box" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6"/>'


def _ways(diagram: Diagram, layout: Layout) -> Iterator[str]:
    for (start, end), between in layout.ways.items():
        maybe = " maybe" if diagram.nodes[end].is_conditional else ""
        path = _path([layout.boxes[start], *between, layout.boxes[end]])
        yield f'<path class="way{maybe}" marker-end="url(#head)" d="{path}"/>'


def _path(boxes: Sequence[Box]) -> str:
    """From the right side of the first to the left side of the last, straight through those between."""
    x, y = boxes[0].x + boxes[0].width, boxes[0].y
    text = f"M{x:.1f} {y:.1f}"
    for box in boxes[1:]:
        middle = (x + box.x) / 2
        text += f" C{middle:.1f} {y:.1f} {middle:.1f} {box.y:.1f} {box.x:.1f} {box.y:.1f}"
        x, y = box.x, box.y
        if box is not boxes[-1]:
            x += box.width
            text += f" H{x:.1f}"
    return text
