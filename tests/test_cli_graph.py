"""`runner graph`: the drawings themselves, and the command."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.diagrams.diagram import Diagram, Node
from runner.diagrams.lanes import ASCII, rows
from runner.diagrams.layout import lay_out
from runner.diagrams.mermaid import mermaid
from runner.diagrams.svg import svg
from tests.cli_project import CliProject

Graph = dict[str, tuple[str, ...]]

DRAWN: dict[str, Graph] = {
    "": {},
    "○ a": {"a": ()},
    "○ a|│|◎ b|│|○ c": {"c": ("b",), "b": ("a",), "a": ()},
    "○ a||◎ b": {"a": (), "b": ()},
    "○   a|│|├─◎ b|│ │|○ │ c|│ │|○─╯ d": {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")},
    "○     a|│|├─◎   b|│ │|├─│─○ c|│ │ │|│ ○─╯ d|│ │|○─╯   e": {
        "a": (),
        "b": ("a",),
        "c": ("a",),
        "d": ("b", "c"),
        "e": ("a", "d"),
    },
    "○   a|│|│ ◎ b|│ │|○─╯ c": {"a": (), "b": (), "c": ("a", "b")},
    "○     a|│|├─○   d|│|│ ◎   b|│ │|│ │ ○ c|│ │ │|○─┴─╯ e": {
        "a": (),
        "d": ("a",),
        "b": (),
        "c": (),
        "e": ("a", "b", "c"),
    },
    "○   a|│|│ ◎ b|│ │|○─┤ c|  │|  ○ d": {"a": (), "b": (), "c": ("a", "b"), "d": ("b",)},
}


@pytest.mark.parametrize("drawing", DRAWN)
def test_lanes(drawing: str) -> None:
    drawn = rows(DRAWN[drawing], frozenset({"b"}))
    assert "|".join(f"{row.lines} {row.name}".rstrip() for row in drawn) == drawing
    assert "".join(row.lines for row in drawn).translate(ASCII).isascii()


names = st.integers(0, 9).map(lambda number: f"n{number}")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 14))
    edges = [
        draw(st.sets(st.integers(0, max(number - 1, 0)), max_size=4)) if number else set() for number in range(count)
    ]
    order = draw(st.permutations(range(count)))
    return {f"n{number}": tuple(f"n{other}" for other in sorted(edges[number])) for number in order}


@given(graphs())
def test_every_node_stands_below_what_it_needs(needs: Graph) -> None:
    drawn = [row.name for row in rows(needs) if row.name]
    assert sorted(drawn) == sorted(needs)
    for name, needed in needs.items():
        assert all(drawn.index(other) < drawn.index(name) for other in needed)


@given(graphs())
def test_nothing_lies_on_anything_else(needs: Graph) -> None:
    sizes = {name: (40.0 + 7 * number, 20.0 + number) for number, name in enumerate(needs)}
    layout = lay_out(needs, sizes, across=30, down=10)
    places = [*layout.boxes.values(), *(box for way in layout.ways.values() for box in way)]
    for one, other in combinations(places, 2):
        beside = one.x + one.width <= other.x or other.x + other.width <= one.x
        assert beside or abs(one.y - other.y) >= (one.height + other.height) / 2 - 1e-6
    for box in places:
        assert 0 <= box.x <= box.x + box.width <= layout.width + 1e-6
        assert -1e-6 <= box.y - box.height / 2 <= box.y + box.height / 2 <= layout.height + 1e-6
    for (start, end), way in layout.ways.items():
        road = [layout.boxes[start], *way, layout.boxes[end]]
        assert all(one.x + one.width < other.x for one, other in pairwise(road))


DIAGRAM = Diagram(
    title="nightly",
    facts=('cron "15 2"', "a < b"),
    nodes={
        "list": Node(name="list", runs="list_shards"),
        "each": Node(name="each", runs="enrich", facts=('for each of input["<x>"]',), is_many=True, status="running"),
        "tell": Node(name="tell", runs="job mail", is_conditional=True, facts=("x" * 90,)),
    },
    needs={"list": (), "each": ("list",), "tell": ("list", "each")},
)


def test_mermaid() -> None:
    assert mermaid(DIAGRAM).splitlines() == [
        "---",
        'title: "nightly · cron \\"15 2\\" · a < b"',
        "---",
        "flowchart LR",
        '  s0["<b>list</b><br/>list_shards"]',
        '  s1[["<b>each</b><br/>enrich<br/>for each of input[#34;#60;x#62;#34;]"]]',
        f'  s2["<b>tell</b><br/>job mail<br/>{"x" * 90}"]',
        "  s0 --> s1",
        "  s0 -.-> s2",
        "  s1 -.-> s2",
    ]


def test_svg() -> None:
    picture = ET.fromstring(svg(DIAGRAM))
    space = "{http://www.w3.org/2000/svg}"
    texts = ["".join(text.itertext()) for text in picture.iter(f"{space}text")]
    assert texts[0] == 'nightly · cron "15 2" · a < b'
    assert {"list", "each", "tell", 'for each of input["<x>"]', "x" * 39 + "…"} < set(texts)
    ways = [path.get("class") for path in picture.iter(f"{space}path") if "way" in str(path.get("class"))]
    assert sorted(map(str, ways)) == ["way", "way maybe", "way maybe"]
    assert len(list(picture.iter(f"{space}rect"))) == 5  # the fan-out is a stack of three
    assert [group.get("class") for group in picture.iter(f"{space}g") if group.get("class")] == ["running"]


STEPS = """
  lone: {run: echo}
  nightly:
    steps:
      shards: {run: echo}
      enrich: {run: log, needs: [shards], foreach: "${{ steps.shards.output.files }}", max_parallel: 8}
      tell: {job: lone, needs: [enrich, shards], if: always()}
    on_failure: {run: trap}
"""


@pytest.fixture
def project(tmp_path: Path) -> CliProject:
    project = CliProject(tmp_path)
    project.declare(STEPS)
    return project


def test_the_command(project: CliProject) -> None:
    assert project.ok("graph", "nightly").text.splitlines() == [
        "nightly",
        "",
        "  ○   shards      echo",
        "  │",
        "  ├─◎ enrich      log       for each of steps.shards.output.files, 8 at once",
        "  │ │",
        "  ○─╯ tell        job lone  if always()",
        "  │",
        "  ○   on_failure  trap      if failure()",
    ]
    assert project.ok("graph", "lone").text.splitlines()[-1] == "  ○ lone  echo"
    assert project.ok("graph", "nightly", "--format", "mermaid").text.startswith('---\ntitle: "nightly"\n')
    ET.fromstring(project.ok("graph", "nightly", "--format", "svg").text)


def test_as_json(project: CliProject) -> None:
    rows = project.ok("graph", "nightly", "--json").rows
    assert [row["step"] for row in rows] == ["shards", "enrich", "tell", "on_failure"]
    assert rows[1] == {
        "step": "enrich",
        "runs": "log",
        "needs": ["shards"],
        "is_many": True,
        "is_conditional": False,
        "facts": ["for each of steps.shards.output.files", "8 at once"],
    }


def test_where_only_ascii_can_be_shown(project: CliProject) -> None:
    project.environment["PYTHONIOENCODING"] = "ascii"
    assert "  +-@ enrich " in project.ok("graph", "nightly").text


def test_an_unknown_job(project: CliProject) -> None:
    done = project.run("graph", "nihgtly")
    assert (done.status, done.out) == (2, b"")
    assert "no job 'nihgtly' in jobs.yaml; did you mean 'nightly'?" in done.err
