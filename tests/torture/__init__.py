"""What takes too long for `make test`: kills, a full disk, a dataset of oddities, fuzzed readers; `make torture`."""
