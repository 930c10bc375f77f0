"""zstd, from the standard library where it has it (Python 3.14), else from the package `zstandard`."""

from __future__ import annotations

import importlib
from typing import Any

from runner.errors import ToolchainUnavailable


def unpack(file: Any) -> Any:
    """A stream of the unpacked bytes of a stream. Raises ToolchainUnavailable."""
    module = _module()
    if module.__name__ == "zstandard":
        return module.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return module.ZstdFile(file)


def errors() -> tuple[type[Exception], ...]:
    """What reading such a stream raises."""
    return (EOFError, OSError, _module().ZstdError)


def packer(level: int) -> Any:
    """What packs one frame: `compress(data)`, then `flush()`. Raises ToolchainUnavailable."""
    module = _module()
    if module.__name__ == "zstandard":
        return module.ZstdCompressor(level=level).compressobj()
    return module.ZstdCompressor(level=level)


def _module() -> Any:
    for name in ("compression.zstd", "zstandard"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ToolchainUnavailable("files that end with .zst need the package zstandard: pip install 'runner[zstd]'")
