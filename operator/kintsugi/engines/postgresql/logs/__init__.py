"""PostgreSQL's server log, from bytes to counts per class and lines without anybody's data. Pure: no I/O, no clock.

`templates` takes values out, `line` classifies, `jsonlog`, `csvlog` and `stderr` decode, `book` counts and remembers.
"""
