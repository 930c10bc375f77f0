"""The imports that the Wasmer engine answers; the app reads them without importing the engine."""

from __future__ import annotations

from typing import Final

from runner.workers.signatures import SIGNATURES

__all__ = ["GROW_IMPORT", "SIGNATURES"]

GROW_IMPORT: Final = ("runner", "grow")
"""Import module and name of the host function (old size, pages more) -> the old size or -1, in pages
of 64 KiB, that growing calls. A guest that imports it by itself is refused: SIGNATURES lacks it."""
