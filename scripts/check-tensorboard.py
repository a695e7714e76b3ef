#!/usr/bin/env python3
"""Checks that TensorBoard reads what monosema logs: every scalar of a dictionary's event file against its metrics.jsonl
(and speed.jsonl), and every histogram against its density.jsonl.

    scripts/check-tensorboard.py runs/quickstart/dictionary
    scripts/check-tensorboard.py runs/quickstart/dictionary --serve    # also through the program's HTTP interface

Needs `pip install tensorboard`. Exits with 1 if anything is missing, left over or different.
"""

import argparse
import json
import math
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# Fields that say when, and are no scalars.
WHEN = {"step", "tokens"}

# Seconds that TensorBoard may take to start, and to have read the file.
START = 60


def lines(path: Path) -> list[dict]:
    """The records of a log; none if there is no such log."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def f32(value: float) -> float:
    """What TensorBoard's scalars can hold of a number."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def expected_scalars(logs: Path) -> dict[str, dict[int, float]]:
    """By field, the value at each step."""
    metrics = lines(logs / "metrics.jsonl")
    assert metrics, f"no records in {logs / 'metrics.jsonl'}"
    step_of = {record["tokens"]: record["step"] for record in metrics}
    fields: dict[str, dict[int, float]] = {}
    for record in metrics + lines(logs / "speed.jsonl"):
        for name, value in record.items():
            if name not in WHEN and value is not None:
                fields.setdefault(name, {})[step_of[record["tokens"]]] = f32(value)
    return fields


def compare(kind: str, expected: dict[str, dict], found: dict[str, dict]) -> bool:
    """Whether the same names have the same values at the same steps; `found` is by tag, `group/name`."""
    by_name = {tag.rsplit("/", 1)[-1]: tag for tag in found}
    good = len(by_name) == len(found)
    for name in sorted(expected.keys() | by_name.keys()):
        want, have = expected.get(name, {}), found.get(by_name.get(name), {})
        wrong = [step for step in sorted(want.keys() | have.keys()) if want.get(step) != have.get(step)]
        good &= not wrong
        tag = by_name.get(name, f"{name}: no such {kind}")
        first = f"; first at step {wrong[0]}: expected {want.get(wrong[0])}, found {have.get(wrong[0])}" if wrong else ""
        print(f"{kind} {tag}: {len(have)} steps, {len(wrong)} differ{first}")
    return good


def check_histograms(accumulator: EventAccumulator, logs: Path) -> bool:
    """Whether the latents that fire are counted in the histogram as in the log, whose first bin is those that do not."""
    tags = accumulator.Tags()["histograms"]
    if not tags:
        print("no histograms")
        return True
    step_of = {record["tokens"]: record["step"] for record in lines(logs / "metrics.jsonl")}
    density = {step_of[record["tokens"]]: record["latents"][1:] for record in lines(logs / "density.jsonl")}
    buckets = {event.step: [int(n) for n in event.histogram_value.bucket[1:]] for event in accumulator.Histograms(tags[0])}
    return compare("histogram", {tags[0].rsplit("/", 1)[-1]: density}, {tags[0]: buckets}) and len(tags) == 1


def served(logs: Path, tags: list[str], port: int) -> dict[str, dict[int, float]]:
    """What the program `tensorboard` serves of each tag. It names runs by their directories, the topmost `.`."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--port", str(port)]
    # Every one of them; left out, it would be a thousand, and 0 would be none.
    command += ["--host", "127.0.0.1", "--samples_per_plugin", f"scalars={2**31 - 1}"]
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def get(path: str, **query):
        url = f"http://127.0.0.1:{port}/data/plugin/scalars/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)

    try:
        deadline = time.monotonic() + START
        while True:
            try:
                if set(tags) <= set(get("tags").get(".", {})):
                    break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                pass
            assert program.poll() is None, f"tensorboard ended with {program.returncode}; is port {port} free?"
            assert time.monotonic() < deadline, f"tensorboard does not serve {logs} after {START} s"
            time.sleep(0.5)
        # Triples of wall time, step and value; f32 values are written so that f64 reads them back.
        return {tag: {step: f32(v) for _, step, v in get("scalars", run=".", tag=tag)} for tag in tags}
    finally:
        program.terminate()
        program.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dictionary", type=Path)
    parser.add_argument("--serve", action="store_true", help="also start tensorboard and ask it")
    parser.add_argument("--port", type=int, default=6116)
    args = parser.parse_args()
    logs = args.dictionary / "logs"
    # 0: keep every event.
    accumulator = EventAccumulator(str(logs), size_guidance={"scalars": 0, "histograms": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    assert tags, f"TensorBoard finds no scalars in {logs}"
    found = {tag: {event.step: event.value for event in accumulator.Scalars(tag)} for tag in tags}
    assert all(math.isfinite(value) for values in found.values() for value in values.values())
    expected = expected_scalars(logs)
    good = compare("scalar", expected, found)
    good &= check_histograms(accumulator, logs)
    if args.serve:
        good &= compare("served scalar", expected, served(logs, tags, args.port))
    print("the same" if good else "NOT the same")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
