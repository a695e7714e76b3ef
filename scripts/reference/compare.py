#!/usr/bin/env python3
"""Holds a report's `ce.clean` against what transformers computed on the same windows.

    python scripts/reference/compare.py runs/smollm2-sotu/report.json scripts/reference/smollm2_ce.json

Exits with 1 if a text of the reference is not in the report, if its windows are others (`windows_sha256`: SHA-256 of
the token ids as little-endian u32, window after window, as given to the model), or if its cross-entropy differs
by more than the tolerance. Needs nothing but Python.
"""

import json
import sys
from pathlib import Path

# In nats a token. Two f32 implementations differ by about 1e-3 in single predictions and by 1e-6 in the mean of
# 40,000; a wrong rotation, norm or mask moves the mean by more than 1e-2.
TOLERANCE = 1e-4


def compare(report: dict, reference: dict) -> list[str]:
    """What does not agree, in words."""
    faults = []
    texts = {text["name"]: text for text in report["texts"]}
    for name, expected in reference["texts"].items():
        if name not in texts:
            faults.append(f"{name}: not in the report, which has {', '.join(texts)}")
            continue
        text = texts[name]
        digest = text.get("windows_sha256")
        if digest != expected["windows_sha256"]:
            faults.append(f"{name}: other windows: expected {expected['windows_sha256']}, found {digest}")
        counted = expected["ce"]["counted"]
        if text["predictions"] != counted["predictions"]:
            faults.append(f"{name}: expected {counted['predictions']} predictions, found {text['predictions']}")
        ours, theirs = text["metrics"]["ce.clean"], counted["nats_per_token"]
        print(f"{name}: ce.clean {ours:.9f}, transformers {theirs:.9f}, difference {ours - theirs:+.1e} nats")
        # Not `> TOLERANCE`: that would let a NaN pass.
        if not abs(ours - theirs) <= TOLERANCE:
            faults.append(f"{name}: ce.clean differs by {abs(ours - theirs):.1e}, more than {TOLERANCE:.0e}")
    if not reference["texts"]:
        faults.append("the reference has no text")
    return faults


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    report, reference = (json.loads(Path(path).read_text()) for path in sys.argv[1:])
    faults = compare(report, reference)
    for fault in faults:
        print(fault, file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
