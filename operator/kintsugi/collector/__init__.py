"""`kintsugi collect`: a Prometheus exporter that serves the signal catalogue for many databases from one process."""
