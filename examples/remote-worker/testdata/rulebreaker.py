"""The worker with a handler that breaks every rule for outcomes."""

import worker

DOES = {
    "result large": lambda: "x" * (300 << 10),
    "result larger": lambda: "x" * (3 << 20),
    "result surrogate": lambda: "a\ud800b",
    "result no json": lambda: {1, 2},
    "raise long": lambda: fail(ValueError("\u00e9" * 5000)),
    "raise nul": lambda: fail(ValueError("a\0b")),
    "raise surrogate": lambda: fail(ValueError("a\ud800b")),
    "fail code": lambda: fail(worker.Failed("x" * 300, "why")),
    "fail audience": lambda: fail(worker.Failed("x", "why", audience="nobody")),
}


def fail(err):
    raise err


worker.handle = lambda task: DOES[task["args"]["do"]]()
worker.main()
