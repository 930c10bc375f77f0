"""Run the jobs that live in a repository, each invocation in its own sandbox."""

__version__ = "0.1.0"
"""The same as in pyproject.toml, which a test holds it to: looking it up costs a third of `runner --version`."""
