"""The one port through which the operator loads learned models: lazily, and never so that it could not go on without.

ModelsError   they can't be used; `reason` is CamelCase for a condition, the message says what to do
"""

from __future__ import annotations

from pathlib import Path

from kintsugi.stages.ports import LearnedModel


class ModelsError(Exception):
    """The learned models can't be used."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def load(directory: Path | None = None) -> LearnedModel:
    """The models of the bundle in `directory`; without one, those that came with this version.

    Raises:
        ModelsError: there are none, or they can't be used.
    """
    try:
        from kintsugi_ml import bundle, serving
    except ImportError as error:
        raise ModelsError("NotInstalled", f"the learned models are not installed ({error}): use the image") from error
    try:
        return serving.load(directory)
    except bundle.BundleError as error:
        raise ModelsError(error.reason, str(error)) from error
