"""Engine resources of the conformance suite. Everything carries the prefix ``plc-`` and the
label ``plc.run=ID``, so two runs can share an engine, and a run removes exactly what it made.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

LABEL = "plc.run"


class LabError(Exception):
    """The suite itself could not do its work (not a difference)."""


class Engine:
    """The only place that starts docker."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.closing = False

    def nap(self, seconds: float) -> None:
        """Sleep, unless the run is being stopped."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.closing:
                raise LabError("stopped")
            time.sleep(min(0.2, left))

    def run(
        self, *argv: str, check: bool = True, stdin: bytes | None = None, timeout: float = 120, sweeping: bool = False
    ) -> subprocess.CompletedProcess:
        if self.closing and not sweeping:
            raise LabError("stopped")
        done = subprocess.run(
            ("docker", *argv), input=stdin, capture_output=True, timeout=timeout, start_new_session=True
        )
        if check and done.returncode:
            raise LabError(f"docker {' '.join(argv[:3])}: {done.stderr.decode(errors='replace').strip()}")
        return done

    def out(self, *argv: str) -> str:
        return self.run(*argv).stdout.decode().strip()

    def label(self) -> tuple[str, ...]:
        return ("--label", f"{LABEL}={self.run_id}")

    def make(self, name: str, *argv: str) -> None:
        """docker create, labelled, of an image that is already here."""
        self.run("create", "--pull", "never", *self.label(), "--name", name, *argv)

    def sweep(self) -> list[str]:
        """Remove whatever this run made; return what would not go."""
        self.closing = True
        flt = f"label={LABEL}={self.run_id}"
        for attempt in range(4):
            boxes = self.sweep_run("ps", "-aq", "--no-trunc", "--filter", flt).stdout.decode().split()
            nets = self.sweep_run("network", "ls", "-q", "--no-trunc", "--filter", flt).stdout.decode().split()
            if not boxes and not nets:
                return []
            # Few at a time: Engine 20.10 can lose count of a network's
            # endpoints when dozens of containers go at once.
            for at in range(0, len(boxes), 3):
                self.sweep_run("rm", "-fv", *boxes[at : at + 3])
            for net in nets:
                self.sweep_run("network", "rm", net)
            time.sleep(0.3 * attempt)
        return boxes + nets

    def sweep_run(self, *argv: str) -> subprocess.CompletedProcess:
        return self.run(*argv, check=False, sweeping=True)


def tar_of(files: dict[str, tuple[bytes, int, int]]) -> bytes:
    """A tar of path -> (content, mode, uid), to be unpacked at /."""
    buf = io.BytesIO()
    with tarfile.open(fileobj=buf, mode="w") as tar:
        made: set[str] = set()
        for path, (content, mode, uid) in files.items():
            for parent in reversed(Path(path).parents):
                name = str(parent).strip("/")
                if name and name not in made and name != "etc":
                    made.add(name)
                    info = tarfile.TarInfo(name)
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(info)
            info = tarfile.TarInfo(path.lstrip("/"))
            info.size, info.mode, info.uid, info.gid = len(content), mode, uid, uid
            tar.addfile(info, io.BytesIO(content))
    return buf.getvalue()


def to_yaml(value: object, indent: int = 0) -> str:
    """Block YAML of dicts, lists and scalars (strings in JSON quotes)."""
    pad = "  " * indent
    if isinstance(value, dict):
        lines = []
        for key, item in value.items():
            if isinstance(item, (dict, list)) and item:
                lines.append(f"{pad}{key}:\n{to_yaml(item, indent + 1)}")
            else:
                lines.append(f"{pad}{key}: {json.dumps(item)}\n")
        return "".join(lines)
    assert isinstance(value, list)
    lines = []
    for item in value:
        if isinstance(item, dict):
            body = to_yaml(item, indent + 1)
            lines.append(pad + "- " + body[len(pad) + 2 :])
        else:
            lines.append(f"{pad}- {json.dumps(item)}\n")
    return "".join(lines)


def openssl(*argv: str, stdin: bytes | None = None) -> bytes:
    exe = shutil.which("openssl")
    if not exe:
        raise LabError("the openssl command is needed to make test certificates")
    done = subprocess.run((exe, *argv), input=stdin, capture_output=True, timeout=60)
    if done.returncode:
        raise LabError(f"openssl {argv[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


class Pki:
    """A CA for the upstream's names, a stray certificate, and a CA for interception."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder = folder
        ext = folder / "ext.cnf"
        ext.write_text("subjectAltName=" + ",".join(f"DNS:{n}" for n in names) + "\nbasicConstraints=CA:FALSE\n")
        self.upstream_ca = self.ca("upstream", "upstream test CA")
        self.mitm_ca = self.ca("mitm", "interception test CA")
        self.good_key, self.good_crt = self.leaf("good", ext)
        openssl(
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=stray",
            "-keyout",
            str(folder / "bad.key"),
            "-out",
            str(folder / "bad.crt"),
        )
        self.bad_key, self.bad_crt = (folder / "bad.key").read_bytes(), (folder / "bad.crt").read_bytes()

    def ca(self, stem: str, name: str) -> tuple[bytes, bytes]:
        """SEC1 key and certificate of a fresh CA."""
        key, crt = self.folder / f"{stem}-ca.key", self.folder / f"{stem}-ca.crt"
        key.write_bytes(openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout"))
        openssl(
            "req",
            "-x509",
            "-new",
            "-key",
            str(key),
            "-sha256",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
            "-out",
            str(crt),
        )
        return key.read_bytes(), crt.read_bytes()

    def leaf(self, stem: str, ext: Path) -> tuple[bytes, bytes]:
        key, csr, crt = (self.folder / f"{stem}.{x}" for x in ("key", "csr", "crt"))
        key.write_bytes(openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout"))
        openssl("req", "-new", "-key", str(key), "-subj", "/CN=upstream", "-out", str(csr))
        openssl(
            "x509",
            "-req",
            "-in",
            str(csr),
            "-CA",
            str(self.folder / "upstream-ca.crt"),
            "-CAkey",
            str(self.folder / "upstream-ca.key"),
            "-CAcreateserial",
            "-days",
            "2",
            "-sha256",
            "-extfile",
            str(ext),
            "-out",
            str(crt),
        )
        return key.read_bytes(), crt.read_bytes()

    def pkcs8(self, key: bytes) -> bytes:
        return openssl("pkcs8", "-topk8", "-nocrypt", stdin=key)
