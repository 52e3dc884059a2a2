"""A process of `workers`: a request comes in on stdin, its answer goes out on stdout, until none follows."""

from __future__ import annotations

import os
import pickle
import sys


def main() -> None:
    """Answer each request before the next is read, so that a crash loses only the one it happens in."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        # What compilers print must not mix with the answers.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        while True:
            try:
                request = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            pickle.dump(request.answer(), answers)
            answers.flush()


if __name__ == "__main__":
    main()
