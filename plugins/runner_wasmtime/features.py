"""The Wasm features that the wasmtime executor runs."""

from __future__ import annotations

VERIFIED = frozenset(
    {
        "bulk-memory",
        "extended-const",
        "large-memory-offsets",
        "multi-value",
        "mutable-globals",
        "reference-types",
        "relaxed-simd",
        "saturating-float-to-int",
        "sign-extension",
        "simd",
        "tail-call",
    }
)
"""Finished proposals that need nothing of the host beyond one memory and function imports. Threads,
more than one memory and 64-bit memories would escape the caps on memory, and stay refused."""
