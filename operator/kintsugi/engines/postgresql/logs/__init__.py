"""PostgreSQL's server log, from bytes to counts per class and lines without anybody's data. Pure: no I/O, no clock.

`messages` are the server's own, `templates` takes values out, `line` classifies, `jsonlog`, `csvlog` and
`stderr` decode, `book` counts and remembers.
"""
