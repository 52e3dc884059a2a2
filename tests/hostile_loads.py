"""Run by tests/test_keras_safety.py in a process of its own: loads crafted files and watches what happens.

Reads a list of [name, model, weights] from stdin; prints a JSON object of name -> class and text of the
error, seconds of processor time, forbidden events, and of "memory" -> MiB that all loads together took at
their peak.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import h5py

import convloom as cl

FORBIDDEN = (
    *("exec", "compile", "import", "marshal.loads", "pickle.find_class", "os.system", "os.exec"),
    *("subprocess.Popen", "socket.connect", "urllib.Request", "os.mkdir", "os.rename", "os.remove"),
    *("os.symlink", "os.link", "tempfile.mkstemp", "tempfile.mkdtemp", "ctypes.dlopen"),
)

PARTS = ("config.json", "model.weights.h5")
"""What may be read in a folder."""


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    cases = json.load(sys.stdin)
    events: list[str] = []
    allowed: set[str | None] = set()
    watching = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event in FORBIDDEN:
            events.append(f"{event} {arguments!r:.200}")
        elif event == "open":
            path, mode = str(arguments[0]), arguments[1]
            if path not in allowed or (mode and set(mode) & set("wax+")):
                events.append(f"open {path} {mode}")

    sys.addaudithook(watch)
    # What is imported on first use is imported now.
    for _, model, weights in cases[:3]:
        load(model, weights)
    assert h5py.__version__
    before = megabytes()
    results: dict[str, Any] = {}
    for name, model, weights in cases:
        inside = [f"{file}/{part}" for file in (model, weights) for part in PARTS]
        allowed = {model, weights, *inside}
        events.clear()
        watching, start = True, time.process_time()
        kind, text = load(model, weights)
        watching, seconds = False, time.process_time() - start
        results[name] = {"kind": kind, "text": text, "seconds": seconds, "events": list(events)}
    results["memory"] = megabytes() - before
    print(json.dumps(results))


def load(model: str, weights: str | None) -> tuple[str, str]:
    try:
        cl.load(model, weights=weights).to_graph()
    except Exception as error:
        return type(error).__name__, str(error)
    return "loaded", ""


if __name__ == "__main__":
    main()
