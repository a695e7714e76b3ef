#!/usr/bin/env python3
"""Draws the losses of two trainings over each other, as SVG on standard output.

    benches/loss_overlay.py A/logs/metrics.jsonl B/logs/metrics.jsonl > overlay.svg
"""

import json
import math
import sys

WIDTH, HEIGHT, MARGIN = 720, 320, 48


def main() -> None:
    first, second = ([json.loads(line) for line in open(path)] for path in sys.argv[1:3])
    steps = [record["step"] for record in first]
    assert steps == [record["step"] for record in second], "both must be logged at the same steps"
    losses = [[record["loss"] for record in run] for run in (first, second)]
    low, high = (round_(math.log10(f(sum(losses, [])))) for f, round_ in ((min, math.floor), (max, math.ceil)))
    apart = max(abs(a - b) / a for a, b in zip(*losses))

    def x(step: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * step / steps[-1]

    def y(loss: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (math.log10(loss) - low) / (high - low)

    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">')
    print(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>')
    for power in range(low, high + 1):
        line = y(10.0**power)
        print(f'<path d="M{MARGIN},{line:.1f}H{WIDTH - MARGIN}" stroke="#ddd"/><text x="4" y="{line + 4:.1f}">{10**power:g}</text>')
    for losses_of_run, colour, width in zip(losses, ("#f4a582", "#2166ac"), (5, 1.2)):
        points = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in zip(steps, losses_of_run))
        print(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
    caption = f"loss over {steps[-1]} steps: autodiff (broad), fused (thin); furthest apart {100 * apart:.2f} %"
    print(f'<text x="{MARGIN}" y="{HEIGHT - 14}">{caption}</text></svg>')


if __name__ == "__main__":
    main()
