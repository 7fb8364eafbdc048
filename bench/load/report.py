"""Turns runs into bench/RESULTS.md: medians, and ratios against those it is compared with."""

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from statistics import median

from measure import Run, Scenario

REFERENCES = ["nginx", "haproxy", "floor"]


def markdown(runs: dict, memory: dict, origin: dict, command: str, method: str) -> str:
    """The whole file. `runs` is scenario → contestant → runs, `origin` scenario → runs without a
    proxy, `memory` contestant → MiB."""
    parts = [
        "# Results of bench/load\n",
        "Written by the command below; do not edit. Load generator, proxy and origin share the "
        "machine, so what counts are the ratios and the CPU per request; absolute rates drift.\n",
        facts(command, method),
    ]
    for scenario, found in runs.items():
        parts.append(table(scenario, found, origin.get(scenario)))
    parts.append(memory_table(memory))
    parts.append(peers())
    return "\n".join(parts)


def facts(command: str, method: str) -> str:
    now = datetime.datetime.now(datetime.timezone.utc)
    lines = [
        ("command", f"`{command}`"),
        ("date", f"{now:%Y-%m-%d %H:%M} UTC"),
        ("machine", f"{cpu_model()}, {os.cpu_count()} cores, Linux {platform.release()}"),
        ("versions", ", ".join(versions())),
        ("commit", said(["git", "describe", "--always", "--dirty"], r"(\S+)")),
        ("method", method),
    ]
    rows = "\n".join(f"| {name} | {value} |" for name, value in lines)
    return f"| | |\n|---|---|\n{rows}\n"


def table(scenario: Scenario, found: dict, direct: list | None) -> str:
    cpu = {name: median(r.cpu_s_per_100k for r in runs) for name, runs in found.items()}
    references = [name for name in REFERENCES if name in found]
    heads = "".join(f" CPU ÷ {name} |" for name in references)
    lines = [
        f"## {scenario.name}: {scenario.what}\n",
        f"| | CPU s per 100k |{heads} req/s | p50 µs | p99 µs | runs, CPU s per 100k |",
        "|---|---|" + "---|" * (len(references) + 4),
    ]
    for name, runs in found.items():
        ratios = "".join(f" {ratio(cpu[name], cpu[r])} |" for r in references)
        each = " ".join(f"{r.cpu_s_per_100k:.2f}" for r in runs)
        lines.append(f"| {name} | **{cpu[name]:.2f}** |{ratios} {rates(runs)} {each} |")
    if direct:
        blank = "".join(" |" for _ in references)
        lines.append(f"| no proxy | |{blank} {rates(direct)} |")
        for name, runs in found.items():
            added = median(r.p50_us for r in runs) - median(r.p50_us for r in direct)
            lines.append(f"\n{name} adds {added:.0f} µs (p50).")
    return "\n".join(lines) + "\n"


def rates(runs: list[Run]) -> str:
    def middle(values):
        values = [v for v in values if v is not None]
        return f"{median(values):.0f}" if values else ""
    return (f"{middle(r.per_second for r in runs)} | {middle(r.p50_us for r in runs)} "
            f"| {middle(r.p99_us for r in runs)} |")


def ratio(value: float, reference: float) -> str:
    return f"{value / reference:.2f}" if reference else ""


def memory_table(memory: dict) -> str:
    lines = ["## Memory\n", "After all of the above, proportional set size of all processes.\n",
             "| | MiB |", "|---|---|"]
    lines += [f"| {name} | {mib:.1f} |" for name, mib in memory.items()]
    return "\n".join(lines) + "\n"


def peers() -> str:
    return ("## How the others are configured\n\n"
            "As in `bench/load/peers/`: two workers or threads each, upstream connections pooled and "
            "kept alive, TLS 1.3 with the same ECDSA certificate, access logs off for all. nginx "
            "caches in files, haproxy and the floor in memory. `floor` is `examples/floor.rs`: "
            "Pingora with one upstream and nothing else, and its test storage for hits, built with "
            "cargo's default release profile. maitred is built as it ships, with profile `dist` "
            "(fat LTO) and mimalloc.\n")


def versions() -> list[str]:
    return [
        "nginx " + said(["nginx", "-v"], r"nginx/(\S+)"),
        "haproxy " + said(["haproxy", "-v"], r"version (\S+)"),
        "wrk " + said(["wrk", "-v"], r"wrk (?:debian/)?(\S+)"),
        "h2load " + said(["h2load", "--version"], r"nghttp2/(\S+)"),
        "openssl " + said(["openssl", "version"], r"OpenSSL (\S+)"),
        "rustc " + said(["rustc", "--version"], r"rustc (\S+)"),
        "pingora " + pingora(),
    ]


def said(command: list[str], pattern: str) -> str:
    here = Path(__file__).parent
    done = subprocess.run(command, capture_output=True, text=True, cwd=here)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "?"


def pingora() -> str:
    lock = Path(__file__).resolve().parent.parent.parent / "Cargo.lock"
    return re.search(r'name = "pingora"\nversion = "([^"]+)"', lock.read_text())[1]


def cpu_model() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()
