"""What can be wrong with the data that a detector is given, and with a stored model.

    DetectionError
    ├── TableError        a file can't be read as a table of numbers; names the file, and the column or row
    ├── ReferenceDataError  the reference can't say what is normal; names what is missing from it
    ├── SupportError      the labelled examples can't be used; names the column or the rows
    ├── SamplesError      what is to be scored doesn't fit what was learned; says what was given and what is expected
    └── ModelError        a stored model is damaged, or of a version that this code doesn't know

Every message says what happened, to what, and what to do.
"""

from __future__ import annotations


class DetectionError(Exception):
    """Base of all errors of this package."""


class TableError(DetectionError):
    """A file that can't be read as a table of numbers."""


class ReferenceDataError(DetectionError):
    """A reference that can't say what is normal."""


class SupportError(DetectionError):
    """Labelled examples that can't be used."""


class SamplesError(DetectionError):
    """Samples to be scored that don't fit what was learned."""


class ModelError(DetectionError):
    """A stored model that is damaged or of an unknown version."""
