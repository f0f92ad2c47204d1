"""`make demo`: a real PostgreSQL with a replica, its pooler, load, metrics and cluster; faults; and the operator."""
