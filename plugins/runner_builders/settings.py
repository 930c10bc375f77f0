"""Settings of the builders. Light to import: every listing of plugins needs them, and no compiler."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class ZigSettings:
    """Settings of the builder for C, C++ and Zig."""

    timeout_seconds: float = field(
        default=300.0, metadata={"doc": "The most wall-clock seconds one build may take", "minimum": 1}
    )
