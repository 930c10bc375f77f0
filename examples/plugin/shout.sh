#!/bin/sh
# Upper-cases what it reads; GREETING, from env_vars, comes first.
echo "shouting for $RUNNER_FUNCTION" >&2
printf '%s' "${GREETING}"
exec tr '[:lower:]' '[:upper:]'
