"""What `compare` and `quality` share: the Python environment, our runners, processes, and tables."""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
REQUIREMENTS = [["requirements.txt"], ["--no-deps", "requirements-no-deps.txt"]]
# The oldest that the pinned versions have packages for.
PYTHON = (3, 11)


class Failed(Exception):
    """A command that failed, with the tail of what it wrote."""


def add_arguments(parser: argparse.ArgumentParser, runner: str) -> None:
    """Options of both programs."""
    parser.add_argument("--json", action="store_true", help="one object a line in place of the table")
    parser.add_argument("--ours", type=Path, metavar="PATH", help=f"a {runner} that is built; default: cargo builds it")
    parser.add_argument("--venv", type=Path, default=cache() / "monosema" / "peers", metavar="DIR",
                        help="Python environment, made if it is not there; default: %(default)s")
    parser.add_argument("--no-install", action="store_true", help="take the environment as it is")
    parser.add_argument("--timeout", type=positive, default=3600, metavar="S",
                        help="seconds that one process may take; default: %(default)s")


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.ours and not args.ours.is_file():
        parser.error(f"--ours {args.ours}: no such file")
    if args.no_install and not python_of(args.venv).is_file():
        parser.error(f"--no-install: no {python_of(args.venv)}")
    # Absolute, because the processes run in a directory of their own.
    args.venv = args.venv.absolute()


def names(text: str, known: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """The implementations of a list `A,B,...`."""
    chosen = list(dict.fromkeys(name for name in text.split(",") if name))
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        parser.error(f"--impl: {', '.join(unknown) or 'nothing'} is not among {','.join(known)}")
    return chosen


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def python_of(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def prepare_venv(venv: Path) -> None:
    """Makes the environment once for a version of the requirements: a stamp in it says which."""
    texts = [(HERE / arguments[-1]).read_bytes() for arguments in REQUIREMENTS]
    digest = hashlib.sha256(b"".join(texts)).hexdigest()
    stamp = venv / "monosema-peers.sha256"
    if stamp.is_file() and stamp.read_text() == digest:
        return
    say(f"installing the peers into {venv} (several GB; --venv DIR puts them elsewhere)")
    # The talk of these commands is progress: standard output is for results.
    if not python_of(venv).is_file():
        if sys.version_info < PYTHON:
            found, wanted = (".".join(map(str, version[:2])) for version in (sys.version_info, PYTHON))
            raise Failed(f"the pinned versions need Python {wanted} or newer, and this is {found}: run this with another, "
                         "or give an environment that is there (--venv DIR)")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True, stdout=sys.stderr)
    for *options, file in REQUIREMENTS:
        command = [python_of(venv), "-m", "pip", "install", *options, "-r", HERE / file]
        subprocess.run(command, check=True, stdout=sys.stderr)
    stamp.write_text(digest)


def build(runner: str, device: str = "cpu") -> Path:
    """The path of one of our binaries, freshly built."""
    say("building ours")
    features = [] if device == "cpu" else ["--features", f"monosema/{device},monosema-benches/{device}"]
    subprocess.run(["cargo", "build", "--release", "--workspace", *features], cwd=REPO, check=True, stdout=sys.stderr)
    path = REPO / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / runner
    if not path.is_file():
        raise Failed(f"cargo built no {path}; --ours PATH names it elsewhere")
    return path


def run(command: list, threads: int, timeout: int, work: Path) -> str:
    """Standard output of one process with its threads pinned."""
    environment = dict(os.environ, TORCHINDUCTOR_CACHE_DIR=str(work / "inductor"))
    # Else torch.compile leaves hundreds of MB in a cache that outlives this run.
    environment["TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS"] = "0"
    for variable in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"]:
        environment[variable] = str(threads)
    try:
        done = subprocess.run(list(map(str, command)), cwd=work, env=environment, timeout=timeout,
                              capture_output=True, text=True, errors="replace")
    except subprocess.TimeoutExpired:
        raise Failed(f"took longer than --timeout, {timeout} s") from None
    except OSError as error:
        raise Failed(str(error)) from None
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).replace("\r", "\n").splitlines()[-12:])
        raise Failed(f"exit status {done.returncode}\n{tail}")
    return done.stdout


def results_of(output: str, key: str) -> list[dict]:
    """The lines of JSON with a number `key`: libraries print as well."""
    results = []
    for line in output.splitlines():
        if line.startswith("{"):
            try:
                result = json.loads(line)
            except ValueError:
                continue
            if isinstance(result.get(key), (int, float)):
                results.append(result)
    if not results:
        raise Failed(f"printed no line of JSON with {key}:\n{output[-500:]}")
    return results


def print_markdown(columns: list[tuple[str, str, str]], rows: list[dict]) -> None:
    """`columns` are title, key and format of a value; the first is aligned left. A value that is not there is a dash."""
    cells = [[title for title, _, _ in columns]]
    cells += [["–" if row[key] is None else form.format(row[key]) for _, key, form in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for line in [cells[0], rule, *cells[1:]]:
        texts = [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))]
        print(f"| {' | '.join(texts)} |")
