"""The `kintsugi` command."""
