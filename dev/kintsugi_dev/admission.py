"""Write the admission policies as rendered into the package: `python -m kintsugi_dev.admission [--check]`.

The operator compares what is installed with what it was shipped with, so the chart, which is the one source of the
policies, has to be known to it. A contract test fails when the file and the chart differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from kintsugi.shell.gate import OPERATOR
from kintsugi_dev.cluster.binaries import binary

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts/kintsugi"
FILE = REPOSITORY / "operator/kintsugi/shell/admission.json"
MUTATING = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
KINDS = (
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)
_RELEASE = "kintsugi", "kintsugi-system"


def rendered(*, mutating: bool = True) -> list[dict[str, Any]]:
    """The chart's admission policies and bindings; without `mutating` as on a cluster before 1.36."""
    name, namespace = _RELEASE
    command = [str(binary("helm")), "template", name, str(CHART), f"--namespace={namespace}"]
    command += ["--kube-version=1.36.0", f"--api-versions={MUTATING}"] if mutating else ["--kube-version=1.35.0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] in KINDS]


def text() -> str:
    """The file's content: kind, name and spec, with a placeholder for the operator's user name."""
    name, namespace = _RELEASE
    kept = [
        {"kind": each["kind"], "metadata": {"name": each["metadata"]["name"]}, "spec": each["spec"]}
        for each in sorted(rendered(), key=lambda each: (each["metadata"]["name"], each["kind"]))
    ]
    written = json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False)
    return written.replace(f"system:serviceaccount:{namespace}:{name}", OPERATOR) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or with `--check` only say whether it is up to date; 1 when it is not."""
    parser = argparse.ArgumentParser(prog="python -m kintsugi_dev.admission", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the file is not up to date")
    options = parser.parse_args(arguments)
    wanted = text()
    if FILE.exists() and FILE.read_text(encoding="utf-8") == wanted:
        return 0
    if options.check:
        print(f"{FILE} is not up to date; run `make crds` and commit it", file=sys.stderr)
        return 1
    FILE.write_text(wanted, encoding="utf-8")
    print(f"wrote {FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
