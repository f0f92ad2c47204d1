"""Where a server's log is read: files, pods, Loki. Each reads on from a position, in a fixed amount of memory."""
