"""Everything that does I/O, one file per system talked to. Nothing in here decides anything."""
