"""The imports that the Wasmer engine answers; the app reads them without importing the engine."""

from __future__ import annotations

from runner.workers.signatures import SIGNATURES

__all__ = ["SIGNATURES"]
