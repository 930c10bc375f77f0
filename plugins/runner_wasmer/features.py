"""The Wasm features that Wasmer 2.1 with LLVM has been found to run correctly."""

from __future__ import annotations

VERIFIED = frozenset({"bulk-memory", "multi-value", "mutable-globals", "saturating-float-to-int", "sign-extension"})
"""Of the 2.0 core specification, as its own test suite shows under LLVM. SIMD is not here: real code
compiled with it gave a wrong sha256. Reference types are not either: tables of references shared
with the host have been seen to crash. Large memory offsets are not: Wasmer's LLVM leaves it to 2 GiB
of guard pages to stop an access, and an offset above that reads and writes beyond them, in the memory
of other instances and of the process."""
