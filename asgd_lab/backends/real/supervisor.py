"""The supervisor of a run's processes: starts them from the fork server, watches, restarts and ends them.

Children run this package's modules and never the user's main script, so a notebook needs no `__main__` guard.
"""

from __future__ import annotations

import signal
import time
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic_ns as now_ns

from asgd_lab.backends.outcome import Watch
from asgd_lab.backends.real import orphans, processes, server, worker
from asgd_lab.backends.real.failure_detector import ServerFailureDetector
from asgd_lab.backends.real.faults import FaultSchedule
from asgd_lab.backends.real.plan import FATAL, Plan
from asgd_lab.backends.real.processes import Losses, Place, why
from asgd_lab.backends.real.progress_words import Words, progress
from asgd_lab.backends.real.transport import Sign
from asgd_lab.errors import RunFailed

POLL_S = 0.2
PATIENCE_S = 30.0  # for processes that were told to stop
FUTILE = 5  # deaths of one worker without a minibatch in between, after which it is not restarted
REMEDY = 4  # limits of silence after which a failed worker is replaced instead of waited for


class Supervisor:
    """The processes of a run inside a `with`; none of them is left when it ends."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.failure: str | None = None
        self.losses = Losses()
        faults = plan.scenario.faults
        self._policy = "stop" if faults is None else faults.on_death
        self._places = [Place() for _ in range(plan.scenario.workers)]
        self._server: BaseProcess | None = None
        self._server_due_ns: int | None = None  # the time to restart it
        self._detector = ServerFailureDetector(plan)
        self._standing: str | None = None  # the reason for a kill of the silent server
        self._switchboard = plan.transport.switchboard()
        self._faults = FaultSchedule(self, plan)
        self._begun = self._over = False

    def __enter__(self) -> None:
        try:
            for number in range(len(self._places)):
                self._start_worker(number)
            self._start_server()
        except BaseException:
            self.end()
            raise

    def __exit__(self, *_: object) -> None:
        self.end()

    # ------------------------------------------------------------------ starts

    def _start_server(self) -> None:
        self._server_due_ns = None
        self._detector.begins()
        with self._switchboard.connecting_server() as place:
            self._server = processes.start("server", server.main, (self.plan, place))

    def _start_worker(self, number: int) -> None:
        place = self._places[number]
        with self._switchboard.connecting_worker(number) as its:
            what = (self.plan, number, place.started, its)
            place.process = processes.start(f"worker {number}", worker.main, what)
        place.started += 1
        place.due_ns = place.given_up_ns = None

    def _start_due(self) -> None:
        now = now_ns()
        if self._server is None and self._server_due_ns is not None and now >= self._server_due_ns:
            self._start_server()
        for number, place in enumerate(self._places):
            if place.due_ns is not None and now >= place.due_ns:
                if place.process is not None:  # it was failed, and does not wake
                    processes.end(place.process)
                self._start_worker(number)
                self.losses.restarts += 1
                self._faults.up(number)

    # ------------------------------------------------------------------ the watch

    def watch(self, watch: Watch | None) -> None:
        """Wait for the end of the run; `failure` holds a failure that ended it."""
        while self.failure is None and not self._over:
            numbers = {place.process: number for number, place in enumerate(self._places)}
            sentinels = {one.sentinel: number for one, number in numbers.items() if one is not None}
            if self._server is not None:
                sentinels[self._server.sentinel] = -1
            ready = connection.wait([*sentinels, *self._switchboard.waitable()], timeout=self._timeout_s(watch))
            report = self._switchboard.heard(ready)
            if report is not None:
                self._note(*report)
            for sentinel in ready:
                if isinstance(sentinel, int):
                    self._ended(sentinels[sentinel])
            try:
                if self.failure is None and not self._over:
                    self._look_at_server()
                    self._start_due()
                    self._do_faults()
            except RunFailed as error:
                self.failure = str(error)
            if watch is not None:
                watch(progress(self.plan.transport.words))
        if self.failure is not None:
            self.stop()
        else:
            self._dismiss()

    def _look_at_server(self) -> None:
        """Kill a silent server, which cannot answer requests."""
        if self._server is None or (silent_ns := self._detector.silent_ns()) is None:
            return
        if self._detector.is_killed():
            self.failure = f"{self._standing}, and does not end"
            return
        self._standing = f"server gave no sign of life for {silent_ns * 1e-9:.0f} s, and was killed"
        self._server.kill()

    def _do_faults(self) -> None:
        start_ns = int(self.plan.transport.words.server[Words.START_NS])
        if start_ns and not self._begun:
            self._begun = True
            self._faults.begin(start_ns)
        self._faults.act()

    def _timeout_s(self, watch: Watch | None) -> float | None:
        times = [self._faults.next_ns, self._server_due_ns, *(place.due_ns for place in self._places)]
        times += [] if self._server is None else [self._detector.due_ns]
        due = [time for time in times if time is not None]
        looks = watch is not None or (not self._begun and self.plan.scenario.faults is not None)
        left_s = max(0.0, (min(due) - now_ns()) * 1e-9) if due else None
        return min(POLL_S, POLL_S if left_s is None else left_s) if looks else left_s

    def _note(self, sign: Sign, number: int) -> None:
        """Note the server's report on a worker."""
        place = self._places[number]
        if sign == Sign.SILENT:
            self.losses.silences += 1
            self.losses.log.append(f"worker {number} gave no sign of life, and was given up")
            place.given_up_ns = now_ns()
            if self._policy == "stop":
                done, log = self._done(number), self._log(number)
                self.failure = f"worker {number} gives no sign of life{done}; its log is {log}"
            elif self._policy == "restart":
                place.due_ns = place.given_up_ns + REMEDY * int(self.plan.transport.words.server[Words.LIMIT_NS])
        elif sign == Sign.AWAKE and place.given_up_ns is not None:
            self.losses.awakenings += 1
            place.given_up_ns = place.due_ns = None

    def _ended(self, number: int) -> None:
        """Handle the end of a process: worker `number`'s, or for -1 the server's. A known end has no effect."""
        process = self._server if number < 0 else self._places[number].process
        if process is None:
            return
        process.join()
        code, pid = process.exitcode or 0, process.pid
        fate = orphans.fate() if code == processes.LOST else None
        if fate is not None and pid is not None:  # the kernel ends it too, without any report
            orphans.await_end(pid)
            code = -signal.SIGKILL
        process.close()
        if number < 0:
            self._server_ended(code)
        else:
            self._places[number].process = None
            if code:
                self._worker_died(number, code)
        if fate is not None:
            for other in range(-1, len(self._places)):
                self._ended(other)
            if self.failure is not None:
                self.failure = f"the fork server, which had started all processes, {fate}, and they ended with it"

    def _worker_died(self, number: int, code: int) -> None:
        place = self._places[number]
        reason = why(f"worker {number}", code, self._log(number), self._done(number))
        self.losses.workers += 1
        self.losses.log.append(reason)
        expected_ns, place.expected_ns = place.expected_ns, None
        steps = int(self.plan.transport.words.worker[number, Words.STEPS])
        if expected_ns is None:
            place.in_vain = 1 if steps > place.steps else place.in_vain + 1
        place.steps = steps
        if code != FATAL and self._policy == "restart" and place.in_vain < FUTILE:
            place.due_ns = expected_ns or now_ns()
        elif code == FATAL or self._policy != "continue" or not self.plan.transport.words.server[Words.START_NS]:
            self.failure = reason
        elif all(each.process is None and each.due_ns is None for each in self._places):
            self.failure = f"no worker is left: {reason}"

    def _server_ended(self, code: int) -> None:
        self._server = None
        if not code:
            self._over = True
            if not self.plan.transport.words.server[Words.FINISHED] and self.failure is None:
                self.failure = f"no worker is left: {(self.losses.log or ['all have ended'])[-1]}"
            return
        log = self.plan.logs / "server.log"
        reason = f"{self._standing}; its log is {log}" if self._standing else why("server", code, log, "")
        is_futile = self._standing is not None and self._detector.is_futile()
        self._standing = None
        self.losses.servers += 1
        self.losses.log.append(reason)
        self._switchboard.disconnect_server()
        if code > 0 or is_futile or (self._policy == "stop" and self._server_due_ns is None):
            self.failure = reason
        elif self._server_due_ns is None:
            self._server_due_ns = now_ns()

    def _log(self, number: int) -> Path:
        return self.plan.logs / f"worker-{number}.log"

    def _done(self, number: int) -> str:
        return f" after {self.plan.transport.words.worker[number, Words.STEPS]} minibatches"

    # ------------------------------------------------------------------ the scenario's faults

    def process_of(self, worker: int) -> BaseProcess | None:
        """The worker's process, or None while it has none."""
        return self._places[worker].process

    def expect(self, worker: int, again_ns: int) -> None:
        """Note that a fault will kill the worker, which may be restarted then."""
        self._places[worker].expected_ns = again_ns

    def take_down(self, lasts_ns: int) -> None:
        """Kill the server for a fault, and restart it not before then."""
        if self._server is not None and self._server.is_alive():
            self._server_due_ns = now_ns() + lasts_ns
            self._server.kill()

    # ------------------------------------------------------------------ ends

    def stop(self) -> None:
        """Ask for the end of the run, wait for PATIENCE_S at most, then end the remaining processes."""
        self._switchboard.stop()
        self._dismiss()

    def _dismiss(self) -> None:
        """Disconnect the workers: healthy ones end by themselves."""
        until = time.monotonic() + PATIENCE_S
        if self._server is not None:
            self._server.join(max(0.0, until - time.monotonic()))
        self._switchboard.disconnect_workers()
        for place in self._places:
            if place.process is not None and place.given_up_ns is None:
                place.process.join(max(0.0, until - time.monotonic()))
        self.end()

    def end(self) -> None:
        """End all processes of this run."""
        running = (self._server, *(place.process for place in self._places))
        self._server = None
        for place in self._places:
            place.process = None
        for process in running:
            if process is not None and process.pid is not None:
                processes.end(process)
        self._switchboard.disconnect_workers()
        self._switchboard.disconnect_server()
