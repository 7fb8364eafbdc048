"""Puts the contestants on stage: one origin, each proxy on ports of its own, all on loopback, all
with the same certificate. Starts and stops them and says what they cost; does not send load."""

import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KIB = "x" * 1024
TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS_MAX = 15
# What somebody who writes a proxy on the framework gets from `cargo build --release`.
FLOOR_PROFILE = "release"


class Stage:
    """A directory with the certificate, the origin and the proxies that run in it."""

    def __init__(self, profile: str):
        self.dir = Path(tempfile.mkdtemp(prefix="maitred-bench-"))
        # Started by root, nginx's workers are somebody else and must reach their cache in there.
        self.dir.chmod(0o711)
        self.profile = profile
        self.origin_port = free_port()
        self.running: list[Server] = []
        certificate(self.dir)

    def __enter__(self):
        values = {"origin": self.origin_port}
        command = ["nginx", "-p", str(self.dir), "-e", f"{self.dir}/origin.err", "-c",
                   self.rendered("origin.conf", values)]
        self.origin = self.start("origin", command, values)
        wait_for(self.origin, self.origin_port)
        return self

    def __exit__(self, *_):
        for server in reversed(self.running):
            server.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def proxy(self, name: str) -> "Server":
        """Starts one of the proxies by name."""
        ports = {"origin": self.origin_port}
        for kind in ("http", "https", "admin"):
            ports[kind] = free_port()
        server = self.start(name, PROXIES[name](self, ports), ports)
        wait_for(server, ports["http"])
        wait_for(server, ports["https"])
        return server

    def start(self, name: str, command: list[str], ports: dict) -> "Server":
        with open(self.dir / f"{name}.out", "wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, cwd=self.dir)
        server = Server(name, process, ports, self.dir / f"{name}.out")
        self.running.append(server)
        return server

    def rendered(self, template: str, values: dict) -> str:
        """Writes a configuration with its ports filled in; gives the path."""
        text = (HERE / "peers" / template).read_text()
        for key, value in {"dir": self.dir, "kib": KIB, **values}.items():
            text = text.replace(f"@{key}@", str(value))
        path = self.dir / template
        path.write_text(text)
        return str(path)

    @staticmethod
    def built(profile: str, *parts: str) -> str:
        folder = "debug" if profile == "dev" else profile
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        return str(target.joinpath(folder, *parts))

    def origin_requests(self) -> int:
        """How many requests the origin has had, this one included."""
        page = fetch(f"http://127.0.0.1:{self.origin_port}/seen").decode()
        return int(page.splitlines()[2].split()[2])


@dataclass
class Server:
    """A process with its children."""

    name: str
    process: subprocess.Popen
    ports: dict
    log: Path

    def url(self, scheme: str, path: str) -> str:
        return f"{scheme}://127.0.0.1:{self.ports[scheme]}{path}"

    def pids(self) -> list[int]:
        found = [self.process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        return found

    def cpu_seconds(self) -> float:
        """User and system time of all its processes."""
        ticks = 0
        for pid in self.pids():
            # The name may contain spaces and parentheses; what follows the last one does not.
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS

    def memory_mib(self) -> float:
        """Proportional set size: pages that its processes share are counted once."""
        kib = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kib += int(line.split()[1])
        return kib / 1024

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def floor(stage: Stage, ports: dict) -> list[str]:
    arguments = [ports["http"], ports["https"], stage.dir / "cert.pem", stage.dir / "key.pem",
                 ports["origin"]]
    return [stage.built(FLOOR_PROFILE, "examples", "floor"), *map(str, arguments)]


def maitred(stage: Stage, ports: dict) -> list[str]:
    config = stage.rendered("maitred.toml", ports)
    return [stage.built(stage.profile, "maitred"), "serve", "--config", config]


def nginx(stage: Stage, ports: dict) -> list[str]:
    config = stage.rendered("nginx.conf", ports)
    return ["nginx", "-p", str(stage.dir), "-e", f"{stage.dir}/nginx.err", "-c", config]


def haproxy(stage: Stage, ports: dict) -> list[str]:
    return ["haproxy", "-f", stage.rendered("haproxy.cfg", ports)]


PROXIES = {"floor": floor, "maitred": maitred, "nginx": nginx, "haproxy": haproxy}


def certificate(folder: Path):
    """One ECDSA certificate for all."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True)
    both = (folder / "cert.pem").read_text() + (folder / "key.pem").read_text()
    (folder / "cert-and-key.pem").write_text(both)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(server: Server, port: int):
    """Until the port takes connections; with the server's own words if it never does."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and server.process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    said = server.log.read_text(errors="replace")[-2000:]
    raise SystemExit(f"{server.name} does not listen on {port}:\n{said}")


def fetch(url: str) -> bytes:
    """The body of a successful response; anything else is an error. Trusts any certificate: ours is
    made up, and this is loopback."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with urllib.request.urlopen(url, timeout=10, context=context) as response:
        return response.read()
