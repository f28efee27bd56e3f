"""What `make lint` checks beside ruff and mypy: documents, notebooks and the environment, as text."""
