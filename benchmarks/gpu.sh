#!/usr/bin/env bash
# Tests and measures Lipwire on a machine that has an NVIDIA GPU, PyTorch with CUDA, and no network.
#
#   benchmarks/gpu.sh fetch DIR       where there is a network: wheels into DIR, the large one in pieces
#   benchmarks/gpu.sh add PIECE       on the machine: the next piece of it, in the order of their names
#   benchmarks/gpu.sh run [DIR] OUT   on the machine: install from DIR and the pieces, test, measure
#
# Pieces are for a way to the machine that takes little at a time; where DIR arrives whole, `run`
# finds them there. Without pieces the machine's own ONNX Runtime is used, without CUDA if it has none:
# kernels of Lipwire's own need no more than the driver and PyTorch's NVRTC, and what is left out
# says so. Nothing is installed outside $LIPWIRE_GPU_HOME (/tmp/lipwire-gpu). Reports are written to
# OUT as they come: machine.txt, kernels.txt, gpu.txt, gpu-PART.json, onnx.txt. Kernels come first,
# ONNX Runtime after them; every part of the benchmark is a process of its own, and whatever fails,
# the rest goes on.
#
# ONNXRUNTIME_GPU (1.31.1), PIECE_MB (41) and LIMIT_S (545, all of `run`) can be set.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=${LIPWIRE_GPU_HOME:-/tmp/lipwire-gpu}
version=${ONNXRUNTIME_GPU:-1.31.1}
large=$home/onnxruntime-gpu.whl
python=${PYTHON:-python3}

fetch() {
    local target=$1 tags=() tag
    mkdir -p "$target"
    for tag in 2_28 2_27 2_17; do tags+=(--platform "manylinux_${tag}_x86_64"); done
    "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp "${tags[@]}" --platform manylinux2014_x86_64 -d "$target" \
        "onnxruntime-gpu==$version"
    local wheel
    wheel=$(ls "$target"/onnxruntime_gpu-*.whl)
    basename "$wheel" >"$target/wheel.name"
    sha256sum <"$wheel" >"$target/wheel.sha256"
    split -b "${PIECE_MB:-41}m" "$wheel" "$target/piece-"
    rm "$wheel"
    ls -l "$target"
}

add() {
    mkdir -p "$home"
    cat "$1" >>"$large"
    ls -l "$large"
}

install() {
    local from=$1
    if [[ ! -e $large ]] && compgen -G "$from/piece-*" >/dev/null; then
        cat "$from"/piece-* >"$large"
    fi
    [[ -e $large && ! -e $home/site/onnxruntime ]] || return 0
    sha256sum --status -c "$from/wheel.sha256" <"$large" ||
        { echo "the pieces of ONNX Runtime do not make the wheel: begin again (rm $large)"; return 1; }
    mkdir -p "$home/wheels"
    ln -sf "$large" "$home/wheels/$(cat "$from/wheel.name")"
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --target "$home/site" "$home/wheels"/*.whl
}

# Where ONNX Runtime and kernels of Lipwire's own look for CUDA: beside themselves, and where the
# loader does.
environment() {
    local nvidia
    nvidia=$("$python" -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null || true)
    if [[ -n $nvidia && -d $home/site && ! -e $home/site/nvidia ]]; then
        ln -s "$nvidia" "$home/site/nvidia"
    fi
    if [[ -n $nvidia ]]; then
        LD_LIBRARY_PATH=$(find -L "$nvidia" -maxdepth 3 -type d -name lib | paste -sd:)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        export LD_LIBRARY_PATH
    fi
    export PYTHONPATH=$home/site:$root/src${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
    # The one dependency of what is measured that a machine for PyTorch may lack, and pip has in it.
    if ! "$python" -c 'import platformdirs' 2>/dev/null; then
        mkdir -p "$home/site"
        echo 'from pip._vendor.platformdirs import *' >"$home/site/platformdirs.py"
    fi
    export XDG_CACHE_HOME=$home/cache
}

# left MOST: seconds that are left, at most MOST; 0 when the time is up.
left() {
    local left=$((begun + ${LIMIT_S:-545} - $(date +%s)))
    ((left < $1)) || left=$1
    echo $((left > 0 ? left : 0))
}

tests() {
    local file=$1 most=$2 report=$3 seconds
    seconds=$(left "$most")
    ((seconds)) || { echo "left out: the time is up" | tee "$report"; return 1; }
    timeout -k 10 "$seconds" "$python" -m pytest "tests/gpu/$file" -p no:cacheprovider -W default \
        -v -rs --durations=10 2>&1 | tee "$report"
}

bench() {
    local part=$1 most=$2 seconds
    seconds=$(left "$most")
    ((seconds)) || { echo "== $part: left out: the time is up"; return 1; }
    timeout -k 10 $((seconds + 10)) "$python" - "$part" "$seconds" "$out/gpu-$part.json" "$networks" <<'PY'
import sys
from pathlib import Path

from lipwire.bench.gpu import as_text, run_gpu
from lipwire.domain import LipwireError

part, limit_s, out, networks = sys.argv[1:]
try:
    report = run_gpu(
        parts=(part,), limit_s=float(limit_s), out=Path(out), networks=Path(networks),
        tell=lambda part: print(as_text(part)),
    )
except LipwireError as error:
    sys.exit(f"error: {error}")
sys.exit(any(part.problem for part in report.parts))
PY
}

run() {
    local from part failed=0
    begun=$(date +%s)
    mkdir -p "$2" "$home"
    from=$(realpath -m "$1")
    out=$(realpath "$2")
    install "$from" || failed=1
    environment
    "$python" -c 'import onnxruntime' || { echo "there is no ONNX Runtime here: fetch one"; return 1; }
    networks=$(mktemp -d "$home/networks-XXXXXX")
    trap 'rm -rf "$networks"' EXIT
    cd "$root"
    {
        nvidia-smi || echo "no nvidia-smi"
        "$python" -c '
import sys

import onnxruntime

from lipwire.bench.gpu import describe_gpu
from lipwire.engine import Device

print("Python", sys.version.split()[0], "ONNX Runtime", onnxruntime.__version__, onnxruntime.__file__)
print(onnxruntime.get_available_providers())
for name, fact in describe_gpu(Device.cuda(0)).items():
    print(f"{name}: {fact}")'
    } 2>&1 | tee "$out/machine.txt" || true
    : >"$out/gpu.txt"
    tests test_kernels.py 170 "$out/kernels.txt" || failed=1
    for part in faces:40 recording:30 launches:40 floor:20 speed:110 live:60 apart:50 swaps:30 crops:30 \
        residents:30 onnx-faces:60 ways:110 onnx-live:60 placement:20 plain:80; do
        bench "${part%:*}" "${part#*:}" 2>&1 | tee -a "$out/gpu.txt" || failed=1
    done
    tests test_cuda.py 220 "$out/onnx.txt" || failed=1
    return $failed
}

case "${1:-}/$#" in
fetch/2) fetch "$2" ;;
add/2) add "$2" ;;
run/2) run "$home" "$2" ;;
run/3) run "$2" "$3" ;;
*)
    sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'
    exit 2
    ;;
esac
