"""A cycle of each loop, read top to bottom: `database.py` decides, `action.py` acts, `hub.py` runs whichever is due."""
