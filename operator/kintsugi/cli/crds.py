"""Write the chart's CRDs and their reference from the models: `python -m kintsugi.cli.crds [--check]`."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from kintsugi.api.crd import KINDS, Vocabulary, crd
from kintsugi.cli.api_reference import page
from kintsugi.domain.signals import Role
from kintsugi.engines.catalogue import load
from kintsugi.engines.risk import RISKS

CRDS = Path("charts/kintsugi/templates/crds")
REFERENCE = Path("docs/api.md")
_HEADER = "# Generated from operator/kintsugi/api by `make crds`; edit the models, not this file.\n"


def files() -> Mapping[Path, str]:
    """What is generated: path from the repository's root, and text.

    Raises:
        ValueError: helm would take a piece of a CRD for one of its own templates.
    """
    texts = {CRDS / f"{kind.plural}.yaml": _text(crd(kind, vocabulary())) for kind in KINDS}
    for path, text in texts.items():
        if "{{" in text:
            raise ValueError(f"{path} would contain '{{{{', which helm takes for a template; reword the description")
    return {**texts, REFERENCE: page(vocabulary())}


def vocabulary() -> Vocabulary:
    """What this version's engines know by name. An SLO has a target in seconds, so it names a symptom in seconds."""
    signals = [signal for signal in load("postgresql") if signal.unit == "s" and signal.role is Role.SYMPTOM]
    return Vocabulary({name: str(risk) for name, risk in RISKS.items()}, [signal.name for signal in signals])


def _text(document: object) -> str:
    return _HEADER + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with `--check` show how they differ; 1 when they do."""
    parser = argparse.ArgumentParser(prog="python -m kintsugi.cli.crds", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is not up to date")
    parser.add_argument("--root", type=Path, default=Path(), help="the repository's root")
    options = parser.parse_args(arguments)
    stale = {
        path: text
        for path, text in files().items()
        if not (options.root / path).is_file() or (options.root / path).read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        if options.check:
            old = (options.root / path).read_text(encoding="utf-8") if (options.root / path).is_file() else ""
            sys.stdout.writelines(
                difflib.unified_diff(old.splitlines(True), text.splitlines(True), str(path), "as generated")
            )
        else:
            (options.root / path).parent.mkdir(parents=True, exist_ok=True)
            (options.root / path).write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    if options.check and stale:
        print(f"{len(stale)} generated files are not up to date; run `make crds` and commit them")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
