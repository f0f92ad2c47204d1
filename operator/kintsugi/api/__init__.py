"""The custom resources `kintsugi.dev/v1alpha1` as immutable pydantic models, and the generator of their CRDs."""
