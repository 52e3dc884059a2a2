"""The process behind `compile_many`: requests come in on stdin, one result at a time goes out on stdout."""

from __future__ import annotations

import os
import pickle
import sys

from .aot import compile_request


def main() -> None:
    """Answer each request as soon as it is compiled, so that a crash loses only the kernel it happens in."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(
            sys.stderr.fileno(), sys.stdout.fileno()
        )  # what compilers print must not mix with the answers
        for request in pickle.load(sys.stdin.buffer):
            pickle.dump(compile_request(request), answers)
            answers.flush()


if __name__ == "__main__":
    main()
