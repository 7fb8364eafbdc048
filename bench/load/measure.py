"""Sends load to one server and reads what it cost. Knows the load generators' ways of speaking;
draws no conclusions."""

import re
import subprocess
from dataclasses import dataclass

from stage import Server

PROXIED = "/object"
CACHED = "/cached/object"


@dataclass(frozen=True)
class Scenario:
    """One kind of load."""

    name: str
    what: str
    tool: str
    scheme: str
    path: str
    connections: int
    streams: int = 1

    def command(self, url: str, seconds: float) -> list[str]:
        if self.tool == "wrk":
            threads = min(2, self.connections)
            return ["wrk", "--latency", "-t", str(threads), "-c", str(self.connections),
                    "-d", f"{seconds:g}s", url]
        return ["h2load", "-t", "1", "-c", str(self.connections), "-m", str(self.streams),
                "-D", f"{seconds:g}", url]


SCENARIOS = [
    Scenario("h1", "GET 1 KiB, HTTP/1.1, 64 connections", "wrk", "http", PROXIED, 64),
    Scenario("tls-h1", "GET 1 KiB, TLS 1.3, HTTP/1.1, 64 connections", "wrk", "https", PROXIED, 64),
    Scenario("tls-h2", "GET 1 KiB, TLS 1.3, HTTP/2, 16 connections of 16 streams", "h2load",
             "https", PROXIED, 16, 16),
    Scenario("hit", "cache hit 1 KiB, HTTP/1.1, 64 connections", "wrk", "http", CACHED, 64),
    Scenario("tls-hit", "cache hit 1 KiB, TLS 1.3, HTTP/1.1, 64 connections", "wrk", "https",
             CACHED, 64),
    Scenario("one", "GET 1 KiB, HTTP/1.1, one connection", "wrk", "http", PROXIED, 1),
    Scenario("tls-one", "GET 1 KiB, TLS 1.3, HTTP/1.1, one connection", "wrk", "https", PROXIED, 1),
]


@dataclass(frozen=True)
class Run:
    """What one burst of load gave."""

    requests: int
    per_second: float
    p50_us: float | None
    p99_us: float | None
    cpu_s_per_100k: float


def run(server: Server, scenario: Scenario, seconds: float) -> Run:
    """One burst; a response that is no 2xx, or a broken connection, ends the whole run."""
    url = server.url(scenario.scheme, scenario.path)
    before = server.cpu_seconds()
    command = scenario.command(url, seconds)
    said = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    cpu = server.cpu_seconds() - before
    text = said.stdout + said.stderr
    read = from_wrk if scenario.tool == "wrk" else from_h2load
    try:
        requests, per_second, p50_us, p99_us = read(text)
    except (ValueError, AttributeError, AssertionError) as error:
        told = " ".join(command)
        raise SystemExit(f"{server.name}, {told}: {error}\n{text}") from error
    return Run(requests, per_second, p50_us, p99_us, cpu * 100_000 / requests)


def from_wrk(text: str) -> tuple[int, float, float, float]:
    assert "Non-2xx" not in text, "responses that are no 2xx"
    assert "Socket errors" not in text, "socket errors"
    requests = int(re.search(r"(\d+) requests in", text)[1])
    assert requests > 0, "no responses"
    per_second = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
    percentile = {}
    for share, value, unit in re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s)$", text, re.M):
        percentile[share] = float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]
    return requests, per_second, percentile["50"], percentile["99"]


def from_h2load(text: str) -> tuple[int, float, None, None]:
    """h2load gives no percentiles."""
    counts = re.search(r"requests: \d+ total, .* (\d+) succeeded, (\d+) failed, (\d+) errored", text)
    requests, failed, errored = map(int, counts.groups())
    ok = int(re.search(r"status codes: (\d+) 2xx", text)[1])
    assert requests > 0 and failed == errored == 0, "failures"
    # Streams still open when the time is up have a status but no end.
    assert ok >= requests, "responses that are no 2xx"
    per_second = float(re.search(r"finished in [\d.]+m?s, ([\d.]+) req/s", text)[1])
    return requests, per_second, None, None
