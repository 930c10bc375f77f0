"""The imports that the wasmtime engine answers, with their types. Imports no engine."""

from __future__ import annotations

from runner.workers.signatures import SIGNATURES

__all__ = ["SIGNATURES"]
