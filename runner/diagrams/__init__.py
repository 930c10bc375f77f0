"""Drawings of jobs: as text with lines, as Mermaid, as SVG. Pure: from a Diagram to a string."""
