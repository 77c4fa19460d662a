#!/usr/bin/env python3
"""A remote worker for Keten: Python 3.9 or newer, standard library only.

Keten's executor POSTs a task, the worker answers 202 at once, does the work in
the background, and POSTs the outcome to the URL it was given, with the token it
was given. What to change for work of your own is handle(), at the end of this
part.

    WORKER_SECRET=... python3 worker.py --port 9000
"""

import argparse
import hmac
import http.client
import http.server
import json
import logging
import os
import queue
import random
import signal
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request


def fit(text, most):
    """Makes any text one that Keten takes: no NUL, no half characters, at most
    that many bytes."""
    text = str(text).replace("\0", "?").encode(errors="replace")
    return text[:most].decode(errors="ignore")


class Failed(Exception):
    """The task failed. retryable: another attempt may help, and Keten makes it
    by itself as long as the task's max_attempts allow."""

    def __init__(self, code, message, audience="operator", retryable=False, retry_after=None):
        super().__init__(message)
        self.outcome = {
            "status": "failed",
            "error": {
                "code": fit(code, 200),
                "message": fit(message, 4096),
                "audience": audience,  # who can do something about it: user or operator
                "retryable": retryable or retry_after is not None,
            },
        }
        if retry_after is not None:  # seconds, instead of the task's back-off
            self.outcome["retry_after_ms"] = int(retry_after * 1000)


def handle(task):
    """Do the work of a task and return its result, anything that JSON can say.

    task has args, previous (the result of the task before), collection_id,
    task_id, run, attempt and fence. task_id is the same in every attempt and
    every run: it is the idempotency key for systems that are called from here,
    because a task whose worker was lost is done once more.
    """
    text = task["args"].get("text", "")
    if not text.strip():
        raise Failed("empty_text", "there is no text to count", audience="user")
    time.sleep(task["args"].get("seconds", 0))
    return {"words": len(text.split()), "characters": len(text)}


# What follows need not be changed.

MAX_BODY = 1 << 20  # bytes of a task, and of a report; the ledger's own limits are below it
log = logging.getLogger("worker")


class Worker:
    """Takes tasks in, works on them in threads, and reports their outcomes."""

    def __init__(self, threads, waiting, api):
        self.api = api
        self.tasks = queue.Queue(maxsize=waiting)
        self.lock = threading.Lock()
        self.held = set()  # attempts that are waiting or worked on
        self.stopping = False
        self.threads = [threading.Thread(target=self.work) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def take(self, task):
        """Returns the HTTP status to answer with."""
        url = task["outcome_url"]
        if self.api and not url.startswith(self.api + "/"):
            # Whoever can make us send tokens elsewhere could report outcomes.
            log.error("a task wants its outcome at %s, which is not below %s", url, self.api)
            return 400
        # Keten asks again when our answer got lost: one attempt is one job.
        attempt = (task["task_id"], task["run"], task["fence"])
        with self.lock:
            if attempt in self.held:
                return 202
            if self.stopping:
                return 503
            try:
                self.tasks.put_nowait((attempt, task))
            except queue.Full:
                return 503
            self.held.add(attempt)
        return 202

    def work(self):
        while True:
            item = self.tasks.get()
            if item is None:
                return
            attempt, task = item
            try:
                report(task, outcome_of(task))
            except Exception:  # a bug in here must not end the thread
                log.exception("task %s: its outcome is lost, and the task times out", task["task_id"])
            finally:
                with self.lock:
                    self.held.discard(attempt)

    def stop(self):
        """Takes nothing more, and returns when all outcomes were reported."""
        with self.lock:
            self.stopping = True
        for _ in self.threads:
            self.tasks.put(None)  # behind the tasks that are waiting
        for thread in self.threads:
            thread.join()


def outcome_of(task):
    try:
        result = handle(task)
        json.dumps(result, allow_nan=False)  # a result that is no JSON is the handler's fault
        return {"status": "succeeded", "result": result}
    except Failed as failed:
        return failed.outcome
    except Exception as err:
        log.exception("task %s", task["task_id"])
        return Failed("exception", "%s: %s" % (type(err).__name__, err), retryable=True).outcome


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """The token goes to nobody else."""

    def redirect_request(self, *_):
        return None


opener = urllib.request.build_opener(NoRedirects)


def report(task, outcome, give_up_after=24 * 3600):
    """POSTs the outcome until the ledger has judged it. The same request may be
    sent any number of times: the first outcome of an attempt counts, and an
    equal one gets the same answer."""
    deadline = time.monotonic() + give_up_after
    wait = 0.5
    fallback = None  # what is reported in the place of an outcome that breaks a rule
    while True:
        status, body, retry_after = post(task, outcome)
        name = "task %s, attempt %s" % (task["task_id"], task["attempt"])
        if status == 200:
            log.info("%s: %s", name, outcome["status"])
            return
        if status == 409:  # it timed out, was canceled, or somebody else was first
            log.warning("%s: the outcome came too late: %s", name, body)
            return
        if status in (400, 413, 422) and outcome is not fallback:
            log.error("%s: the outcome was refused with %s: %s", name, status, body)
            fallback = Failed("invalid_result", "the outcome was refused with %s: %s" % (status, body[:1000])).outcome
            outcome = fallback
            continue
        if status not in (0, 202, 408, 429) and status < 500 or status == 501:
            log.error("%s: the outcome was refused with %s: %s", name, status, body)
            return
        if time.monotonic() > deadline:
            log.error("%s: the outcome could not be reported: %s %s", name, status, body)
            return
        if status != 202:  # 202: it is written, and only the verdict is not known yet
            log.warning("%s: reporting again: %s %s", name, status or "no answer", body)
        time.sleep(max(retry_after, wait * random.uniform(0.5, 1)))
        wait = min(wait * 2, 60)


def post(task, outcome):
    """Returns status (0 for no answer), body and Retry-After in seconds."""
    data = json.dumps(outcome).encode()
    if len(data) > MAX_BODY:
        # Not asked: an answer in the middle of what is sent can get lost, which
        # looks like an API that is away.
        return 413, "it is %d bytes long, more than %d" % (len(data), MAX_BODY), 0
    request = urllib.request.Request(
        task["outcome_url"],
        data=data,
        headers={
            "Content-Type": "application/json",
            "Authorization": "Bearer " + task["outcome_token"],
            "Prefer": "wait=10",
        },
        method="POST",
    )
    try:
        with opener.open(request, timeout=30) as response:
            return response.status, response.read().decode(errors="replace"), seconds(response.headers)
    except urllib.error.HTTPError as err:
        with err:
            return err.code, err.read(64 << 10).decode(errors="replace"), seconds(err.headers)
    except (OSError, http.client.HTTPException) as err:  # refused, reset, timed out
        return 0, str(err), 0


def seconds(headers):
    try:
        return min(max(float(headers.get("Retry-After", 0)), 0), 60)
    except ValueError:
        return 1


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True  # a caller that hangs does not hold up the end

    def __init__(self, address, worker, secret):
        super().__init__(address, Requests)
        self.worker, self.secret = worker, secret


class Requests(http.server.BaseHTTPRequestHandler):
    timeout = 10  # seconds, for a caller that is slow or gone

    def do_GET(self):
        self.answer(503 if self.server.worker.stopping else 200)

    def do_POST(self):
        try:
            length = int(self.headers["Content-Length"])
        except (TypeError, ValueError):
            return self.answer(411)
        if not 0 <= length <= MAX_BODY:
            return self.answer(413)
        body = self.rfile.read(length)  # also of who may not: an answer behind unread bytes can get lost
        if self.server.secret:
            want = "Bearer " + self.server.secret
            if not hmac.compare_digest(self.headers.get("Authorization", "").encode(), want.encode()):
                return self.answer(401)
        try:
            task = json.loads(body)
            for member in ("args", "task_id", "run", "attempt", "fence", "outcome_url", "outcome_token"):
                task[member]
        except (ValueError, KeyError, TypeError) as err:
            log.error("a request is not a task: %r", err)
            return self.answer(400)
        self.answer(self.server.worker.take(task))

    def answer(self, status):
        self.send_response(status)
        if status == 503:
            self.send_header("Retry-After", "5")
        if status >= 400:
            self.close_connection = True  # its body may not have been read
            self.send_header("Connection", "close")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description="A remote worker for Keten.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000, help="0: any free one")
    parser.add_argument("--threads", type=int, default=4, help="tasks at a time")
    parser.add_argument("--waiting", type=int, default=100, help="tasks that may wait for a thread; more are answered 503")
    parser.add_argument("--api", default=os.environ.get("KETEN_API", ""), help="report to URLs below this one only")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    secret = os.environ.get("WORKER_SECRET", "")
    if not secret and args.host not in ("127.0.0.1", "::1", "localhost"):
        parser.error("without WORKER_SECRET anybody who reaches %s could give it work" % args.host)

    worker = Worker(args.threads, args.waiting, args.api.rstrip("/"))
    server = Server((args.host, args.port), worker, secret)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("listening on http://%s:%d" % server.server_address[:2], flush=True)
    while not stop.wait(3600):
        pass
    log.info("stopping; waiting for the tasks that were taken")
    worker.stop()  # meanwhile the server answers 503, and Keten asks again later
    server.shutdown()


if __name__ == "__main__":
    main()
