#!/usr/bin/env bash
# Everything worth doing on a GPU that is lent for a few minutes, on a machine with no more than PyTorch, Triton,
# NumPy and pytest (pytest-xdist where it is there): nothing has to be installed, and no network is needed.
#   benchmarks/gpu_session.sh FOLDER [PYTHON] [--tiny]
# Eight minutes in all; each part has a limit of its own, and a part that fails or runs out leaves the rest to the
# others. FOLDER receives results.jsonl, a line for each result as it comes, and what each part printed. --tiny
# runs all of it in some minutes on a machine without a GPU, in Triton's interpreter.
#
# Kernels compiled elsewhere are found in the folder gpu_cache of this checkout, if it is carried here.
# benchmarks/gpu_carry.py says how to make it, which needs no GPU.
set -u
folder=${1:?usage: benchmarks/gpu_session.sh FOLDER [PYTHON] [--tiny]}
python=${2:-python3}
tiny=${3:-}
mkdir -p "$folder" || exit 1
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/.." || exit 1
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$PWD/gpu_cache}
mkdir -p "$TRITON_CACHE_DIR"

{ nvidia-smi || rocm-smi; } >"$folder/gpu.txt" 2>&1
"$python" benchmarks/gpu_room.py "$folder/room" "$TRITON_CACHE_DIR" || exit 1
export PYTHONPATH=$folder/room
began=$SECONDS
: >"$folder/results.jsonl"

ran() { # name, what it returned, when it began
    local words="$1: returned $2 after $((SECONDS - $3)) s (0 is good, 124 ran out of time)"
    echo "$words" | tee -a "$folder/session.txt"
}

part() { # name, seconds: begins nothing in the last tenth of them, and is stopped at their end
    local start=$SECONDS
    timeout -k 5 "$2" "$python" "benchmarks/gpu_$1.py" --output "$folder/results.jsonl" \
        --seconds "$(($2 * 9 / 10))" ${tiny:+--tiny --device cpu} >"$folder/$1.txt" 2>&1
    ran "$1" $? "$start"
    grep -h "^part" "$folder/$1.txt" | tail -n 40
}

tests() { # seconds
    local start=$SECONDS side_by_side=() chosen=(-m "gpu and not slow") processes=12 files
    [ -n "$tiny" ] && chosen=(-m "not gpu" -k "any_batch_size") processes=2
    "$python" -c "import xdist" 2>/dev/null && side_by_side=(-n "$processes")
    # -P: the checkout's own folder "convloom" lacks the rooms.
    mapfile -t files < <("$python" benchmarks/gpu_tests.py)
    timeout -k 5 "$1" "$python" -P -m pytest "${chosen[@]}" "${side_by_side[@]}" -v -p no:cacheprovider \
        "${files[@]:-no_test_files}" >"$folder/tests.txt" 2>&1
    ran tests $? "$start"
    tail -n 15 "$folder/tests.txt"
}

part ceilings 20
part values 50
part rivals 70
part bandwidth 40
tests 75
part networks 135
part training 80
echo "the session took $((SECONDS - began)) s; results are in $folder" | tee -a "$folder/session.txt"
