#!/usr/bin/env bash
# Tests and measures Lipwire on a machine that has an NVIDIA GPU, PyTorch with CUDA, and no network.
#
#   benchmarks/gpu.sh fetch DIR       where there is a network: wheels into DIR, the large one in pieces
#   benchmarks/gpu.sh add PIECE       on the machine: the next piece of it, in the order of their names
#   benchmarks/gpu.sh run DIR OUT     on the machine: install from DIR and the pieces, test, measure
#
# Pieces are for a way to the machine that takes little at a time; where DIR arrives whole, `run`
# finds them there. Nothing is installed outside $LIPWIRE_GPU_HOME (/tmp/lipwire-gpu). Reports are
# written to OUT: machine.txt, tests.txt, gpu.txt, gpu.json; all that there is, whatever fails.
#
# ONNXRUNTIME_GPU (1.31.1), PIECE_MB (41), TESTS_S (220) and BENCH_S (290) can be set.
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
        mkdir -p "$home"
        cat "$from"/piece-* >"$large"
    fi
    if [[ -e $large && ! -e $home/site/onnxruntime ]]; then
        sha256sum --status -c "$from/wheel.sha256" <"$large" ||
            { echo "the pieces of ONNX Runtime do not make the wheel: begin again (rm $large)"; return 1; }
        mkdir -p "$home/wheels"
        ln -sf "$large" "$home/wheels/$(cat "$from/wheel.name")"
        "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
            --target "$home/site" "$home/wheels"/*.whl
    fi
    # Where this ONNX Runtime looks for CUDA and cuDNN: beside itself, and where the loader does.
    local nvidia
    nvidia=$("$python" -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null || true)
    if [[ -n $nvidia && -d $home/site && ! -e $home/site/nvidia ]]; then
        ln -s "$nvidia" "$home/site/nvidia"
    fi
    if [[ -n $nvidia ]]; then
        LD_LIBRARY_PATH=$(find -L "$nvidia" -maxdepth 3 -type d -name lib | paste -sd:)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        export LD_LIBRARY_PATH
    fi
    export PYTHONPATH=$home/site:$root/src PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
}

run() {
    local from out failed=0
    mkdir -p "$2"
    from=$(realpath "$1")
    out=$(realpath "$2")
    install "$from"
    cd "$root"
    {
        nvidia-smi || echo "no nvidia-smi"
        "$python" -c '
import onnxruntime, sys
print("Python", sys.version.split()[0], "ONNX Runtime", onnxruntime.__version__, onnxruntime.__file__)
print(onnxruntime.get_available_providers())
from lipwire.engine import cuda_problem
print("CUDA:", cuda_problem() or "works")'
    } 2>&1 | tee "$out/machine.txt" || true
    timeout -k 10 "${TESTS_S:-220}" "$python" -m pytest tests/gpu -p no:cacheprovider -W default \
        -v -rs --durations=10 2>&1 | tee "$out/tests.txt" || failed=1
    timeout -k 10 $((${BENCH_S:-290} + 60)) "$python" - "${BENCH_S:-290}" "$out/gpu.json" <<'PY' 2>&1 | tee "$out/gpu.txt" || failed=1
import sys
from pathlib import Path

from lipwire.bench.gpu import as_text, run_gpu
from lipwire.domain import LipwireError

limit_s, out = float(sys.argv[1]), Path(sys.argv[2])
try:
    report = run_gpu(limit_s=limit_s, out=out, tell=lambda part: print(as_text(part)))
except LipwireError as error:
    sys.exit(f"error: {error}")
print(report.machine)
sys.exit(any(part.problem for part in report.parts))
PY
    return $failed
}

case "${1:-}/$#" in
fetch/2) fetch "$2" ;;
add/2) add "$2" ;;
run/3) run "$2" "$3" ;;
*)
    sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'
    exit 2
    ;;
esac
