"""What scripts/conformance.sh runs: see there."""

import argparse
import json
import math
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "benches/peers/impls"))

from harvest_transformer_lens import hooked
from transformer_lens import HookedTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer
from sae_lens import SAE

import fixture
import function
import theirs
from figures import ALL_POSITIONS, OURS, SAEBENCH, SAEBENCH_DEFAULT, SAELENS, Convention, Figures, Latents, Text, why
from report import Reporter
from windows import cut

# Relative. What is left must be rounding: theirs are f32 means of f32 values, ours and the recomputed ones f64 sums.
TOLERANCE = 1e-3

# Logits, relative to the largest: two programs, f32.
LOGIT_TOLERANCE = 1e-4

# What reports call conventions.
IN_REPORT = {SAELENS: "saelens", SAEBENCH_DEFAULT: "saebench"}

LENGTH = 128
BATCH = 16
FIXTURE_WINDOWS = 8


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="conformance.sh")
    parser.add_argument("--monosema", type=Path, required=True, help="the program")
    parser.add_argument("--outputs", type=Path, required=True, help="crates/sae's example `outputs`")
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face directory")
    parser.add_argument("--text", type=Path, required=True, help="JSON lines with a field `text`")
    parser.add_argument("--windows", type=int, default=128, help="of the text that the first dictionary is evaluated on")
    parser.add_argument("--work", type=Path, required=True, help="a directory for what is passed from program to program")
    parser.add_argument("--write-fixture", type=Path, nargs=2, metavar=("DICTIONARY", "DIR"),
                        help="write the fixture of tests/tests/conformance.rs: a copy of a dictionary, and figures of it")
    parser.add_argument("dictionaries", type=Path, nargs="+", help="directories; of the first all figures are shown")
    return parser.parse_args()


def language_model(directory: Path, tokens: torch.Tensor) -> HookedTransformer:
    """The model in TransformerLens, which computes what transformers computes."""
    model = hooked(directory)
    model.set_tokenizer(AutoTokenizer.from_pretrained(directory))
    reference = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        error = function.apart(model(tokens), reference(tokens).logits)
    print(f"model: TransformerLens's logits differ from transformers' by {error:.1e} of the largest")
    assert error <= LOGIT_TOLERANCE
    return model


@dataclass
class Judge:
    """A program with figures of its own, and the convention that they follow."""

    name: str
    convention: Convention
    figures: Figures
    latents: Latents


def judges(model: HookedTransformer, directory: Path, tokens: torch.Tensor, batch: int = BATCH) -> list[Judge]:
    return [
        Judge("SAELens", SAELENS, *theirs.saelens(model, directory, tokens, batch)),
        Judge("SAEBench", SAEBENCH_DEFAULT, *theirs.saebench(model, directory, tokens, batch, exclude_special=False)),
        Judge("SAEBench, exclude_special_tokens", SAEBENCH, *theirs.saebench(model, directory, tokens, batch, exclude_special=True)),
    ]


def relative(found: float | None, expected: float | None) -> float:
    """Both undefined are the same, one alone is not: `max` of what comes out passes over nothing."""
    undefined = [value is None or math.isnan(value) for value in (found, expected)]
    if any(undefined):
        return 0.0 if all(undefined) else math.inf
    return abs(found - expected) / max(abs(expected), 1e-12)


def compare(directory: Path, reporter: Reporter, model: HookedTransformer, full: bool) -> bool:
    """Whether every figure of each program is ours, or becomes so by the conventions that are written down."""
    tokens = reporter.windows
    text = Text(model, SAE.load_from_disk(directory), tokens, reporter.special, BATCH)
    ours, report = reporter.figures(directory, skip_first=1)
    at_all, _ = reporter.figures(directory, skip_first=0)
    # The recomputed figures must be ours where the convention is ours: or what follows would explain something else.
    anchors = [(OURS, ours), (ALL_POSITIONS, at_all)]
    anchor = max(relative(text.figures(c)[name], value) for c, values in anchors for name, value in values.items())
    good = anchor <= TOLERANCE
    print(f"\n{label(directory)}: {len(tokens)} windows; recomputed by our convention, every figure is the "
          f"report's within {anchor:.1e}")
    for judge in judges(model, directory, tokens):
        good &= of_judge(judge, text, ours, at_all, full)
        if judge.convention in IN_REPORT:
            # `[eval] conventions`: the program itself, under this convention.
            found = report["conventions"][IN_REPORT[judge.convention]]
            left = max(relative(found[name], value) for name, value in judge.figures.items())
            print(f"{judge.name}: monosema's own figures under its convention differ by {left:.1e} at most")
            good &= left <= TOLERANCE
    check_schema(report)
    return good


def check_schema(report: dict) -> None:
    """Fails unless the report is what its published schema says."""
    schema = Path(__file__).resolve().parents[2] / "crates/evaluator/report.schema.json"
    jsonschema.validate(report, json.loads(schema.read_text()))
    print("report.json is what its schema says")


def of_judge(judge: Judge, text: Text, ours: Figures, at_all: Figures, full: bool) -> bool:
    again, latents = text.figures(judge.convention), text.latents(judge.convention)
    steps = why(text, judge.convention) if full else {}
    worst, direct = 0.0, 0
    if full:
        print(f"\n| {judge.name} | theirs | ours | ours, skip_first = 0 | ours, by their convention | left | why |")
        print("|---|---:|---:|---:|---:|---:|---|")
    for name, value in judge.figures.items():
        left = relative(again[name], value)
        worst = max(worst, left)
        shown = [f"{figures[name]:.6g}" if name in figures else "–" for figures in (ours, at_all)]
        direct += name in at_all and relative(at_all[name], value) <= TOLERANCE
        reasons = "; ".join(f"{step.reason} ({step.change:+.2g})" for step in steps.get(name, []))
        if full:
            print(f"| {name} | {value:.6g} | {' | '.join(shown)} | {again[name]:.6g} | {left:.0e} | {reasons} |")
    of_latents = max(apart_in_latents(found, latents[name]) for name, found in judge.latents.items())
    print(f"{judge.name}: {len(judge.figures)} figures, {direct} of them those of monosema with skip_first = 0, the others by what is "
          f"written down; what is left is {worst:.1e} at most, and {of_latents:.1e} in figures of single latents")
    return max(worst, of_latents) <= TOLERANCE


def apart_in_latents(found: torch.Tensor, expected: torch.Tensor) -> float:
    """As `function.apart`; what is not defined of dead latents must not be in both."""
    defined = expected.isfinite()
    return function.apart(found[defined], expected[defined]) if torch.equal(found.isfinite(), defined) else torch.inf


def label(directory: Path) -> str:
    """A dictionary is in a directory of that name: what it is stands above."""
    return directory.parent.name if directory.name == "dictionary" else directory.name


def main() -> int:
    args = arguments()
    torch.manual_seed(0)
    # That each text is short, that a model is loaded in another way than by name.
    warnings.filterwarnings("ignore", module="sae_lens")
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    special = set(tokenizer.all_special_ids)
    windows = cut(tokenizer, args.text, LENGTH, args.windows, BATCH)
    few = cut(tokenizer, args.text, LENGTH, 2 * BATCH, BATCH)
    model = language_model(args.model, windows[:BATCH])
    good, first = True, True
    for directory in args.dictionaries:
        sae = SAE.load_from_disk(directory)
        transcoder = "transcoder" in sae.cfg.architecture()
        for result in function.compare(args.outputs, directory, model, few[:4], args.work):
            good &= result.agrees()
            print(f"{label(directory)}, {sae.cfg.architecture()} {sae.cfg.d_in} -> {sae.cfg.d_sae}, {result.rows} {result.inputs} inputs: "
                  f"encode {result.encode:.1e}, decode {result.decode:.1e}, reconstruct {result.reconstruct:.1e}"
                  f"{'' if result.agrees() else '  DIFFERS'}")
        # Neither program evaluates transcoders: CONVENTIONS.md says what they do instead.
        if not transcoder:
            reporter = Reporter(args.monosema, args.model, args.text, windows if first else few, special, BATCH, args.work)
            good &= compare(directory, reporter, model, full=first)
            first = False
    if args.write_fixture:
        # In one batch: then what is of a batch is of the text.
        windows = cut(tokenizer, args.text, LENGTH, FIXTURE_WINDOWS, 1)
        found = judges(model, args.write_fixture[0], windows, len(windows))
        fixture.write(*args.write_fixture, args.text, found, windows)
    print("\nconformance: " + ("agreed" if good else "DIFFERS: see above"))
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
