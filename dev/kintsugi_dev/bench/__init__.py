"""`make bench`: how fast it detects, what a cycle and the process cost, each beside a baseline from the same run."""
