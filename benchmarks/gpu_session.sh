#!/usr/bin/env bash
# Everything worth doing on a GPU that is lent for a few minutes: the GPU tests, then the benchmark.
#   benchmarks/gpu_session.sh FOLDER [PYTHON]
# Under ten minutes in all. FOLDER receives gpu.txt, tests.txt, benchmark.txt and one JSON file a dtype.
set -u
folder=${1:?usage: benchmarks/gpu_session.sh FOLDER [PYTHON]}
python=${2:-python3}
mkdir -p "$folder" || exit 1
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/.." || exit 1
export PYTHONUNBUFFERED=1

{ nvidia-smi || rocm-smi; } >"$folder/gpu.txt" 2>&1

timeout 240 "$python" -m pytest -m "gpu and not slow" -q --durations=10 >"$folder/tests.txt" 2>&1
tests=$?
tail -n 15 "$folder/tests.txt"

bench() { # dtype, seconds to start cases in, hard limit
    timeout "$3" "$python" benchmarks/run.py --dtype "$1" --seconds "$2" --rounds 9 \
        --variants nchw compile convloom unfused --patience 0 \
        --output "$folder/benchmark_$1.json" >>"$folder/benchmark.txt" 2>&1
}
: >"$folder/benchmark.txt"
bench float32 110 150
first=$?
bench bfloat16 90 130
second=$?
cat "$folder/benchmark.txt"

echo "tests: $tests  benchmark float32: $first  bfloat16: $second (0 is good, 124 ran out of time)"
[ "$tests" -eq 0 ] && [ "$first" -eq 0 ] && [ "$second" -eq 0 ]
