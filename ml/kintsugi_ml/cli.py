"""`kintsugi-ml`: the learned models on anybody's data, without a cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kintsugi_ml.detection.cli import add_detect
from kintsugi_ml.detection.errors import DetectionError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0, or 1 with a sentence that says what is wrong."""
    parser = argparse.ArgumentParser(prog="kintsugi-ml", description=__doc__)
    add_detect(parser.add_subparsers(required=True, metavar="command"))
    parsed = parser.parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
        return status
    except DetectionError as error:
        print(f"kintsugi-ml: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
