"""The learned models of Kintsugi and the laboratory they learn from. `kintsugi` loads this through one port."""
