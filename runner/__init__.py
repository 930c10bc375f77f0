"""Run the jobs that live in a repository, each invocation in its own sandbox."""
