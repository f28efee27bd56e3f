"""Measurements of speed, each a ratio within one run; run with `make bench`. Nothing here is asserted in a test."""
