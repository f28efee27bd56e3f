"""Two runs side by side, or many on one page: `python -m helpers.compare RUN RUN ...`."""
