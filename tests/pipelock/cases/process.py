"""Start, probe, signals, stop."""

from __future__ import annotations

import hashlib
import json
import time
from types import SimpleNamespace

from tests.pipelock.cases.config import BASE
from tests.pipelock.checks import (
    HTTP,
    between,
    established,
    event,
    interception,
    json_error,
    like,
    same,
    strict,
)
from tests.pipelock.engine import tar_of, to_yaml
from tests.pipelock.lab import CONFIG_PATH, PORT, Lab, Sidecar
from tests.pipelock.table import CORE, DETAIL, Differs, case, group

# == start, probe, stop ========================================================


@group("process", 16)
def _(lab: Lab) -> SimpleNamespace:
    text = to_yaml(strict("plain.allowed.test", "slow.test", lab.public_ip))
    return SimpleNamespace(lab=lab, text=text, box=lab.sidecar(text))


@case("process", "ready", CORE, "answers /health soon after docker start (real: 0.4 s; 8 on a busy engine)")
def _(c):
    between("seconds", c.box.seconds_to_healthy, 0, 8)


@case("process", "healthcheck", CORE, "docker exec /pipelock healthcheck: exit 0, nothing printed")
def _(c):
    done = c.box.execute("healthcheck")
    same("exit code and output", (done.returncode, done.stdout, done.stderr), (0, b"", b""))


@case("process", "healthcheck-addr", DETAIL, "healthcheck --addr of a dead port: exit 1")
def _(c):
    done = c.box.execute("healthcheck", "--addr", "127.0.0.1:1")
    same("exit code", done.returncode, 1)
    like("stderr", done.stderr.decode(), "^health check failed: ")


@case("process", "no-shell", DETAIL, "there is no shell to exec")
def _(c):
    same("exit code", c.lab.engine.run("exec", c.box.name, "sh", "-c", "id", check=False).returncode, 126)


@case("process", "startup-event", CORE, "startup event names listener, mode, version and the config's sha256")
def _(c):
    found = event(
        c.box,
        {"event": "startup"},
        {
            "level": "info",
            "component": "pipelock",
            "listen": f"0.0.0.0:{PORT}",
            "mode": "strict",
            "config_hash": hashlib.sha256(c.text.encode()).hexdigest(),
            "message": "pipelock started",
        },
    )
    same("version", found["version"], c.box.get("/health").json()["version"])


@case("process", "version", CORE, "version is the one expected, in /health, log and --version")
def _(c):
    found = c.box.get("/health").json()["version"]
    if c.lab.expect_version:
        same("version", found, c.lab.expect_version)
    done = c.box.execute("--version")
    same("--version", (done.returncode, done.stdout.decode()), (0, f"pipelock version {found}\n"))


@case("process", "streams", CORE, "stdout holds one JSON object a line and nothing else")
def _(c):
    for line in c.box.logs()[0].splitlines():
        if not isinstance(json.loads(line), dict):
            raise Differs("line on stdout", "a JSON object", line)


@case("process", "banner", DETAIL, "the banner and the listener warnings are on stderr")
def _(c):
    err = c.box.logs()[1]
    like("stderr", err, r"(?m)^Pipelock v\S+ starting\n  Mode:   strict\n  Listen: 0\.0\.0\.0:8888$")
    like("stderr", err, r"(?m)^WARNING: fetch_proxy\.listen: listen address 0\.0\.0\.0:8888 is not loopback")


@case("process", "copied-config", CORE, "the config can be read back with docker cp")
def _(c):
    done = c.lab.engine.run("cp", f"{c.box.name}:{CONFIG_PATH}", "-")
    same("content is in the tar", c.text.encode() in done.stdout, True)


@case("process", "check", CORE, "check -c accepts the file: exit 0, text on stderr")
def _(c):
    done = c.box.execute("check", "-c", CONFIG_PATH)
    same("exit code, stdout", (done.returncode, done.stdout), (0, b""))
    like("stderr", done.stderr.decode(), r"^Config validation: OK\n  Mode: +strict\n")


@case("process", "check-bad", CORE, "check -c refuses a bad file: exit 1, text on stderr")
def _(c):
    code, out, err = c.lab.one_shot(BASE + "foo: 1\n", "check", "-c", CONFIG_PATH)
    same("exit code, stdout", (code, out), (1, ""))
    like("stderr", err, r"^Config validation FAILED: parsing config .*line 7: field foo not found")


@case("process", "check-url", DETAIL, "check --url tells the verdict of one URL by its exit code")
def _(c):
    good = c.box.execute("check", "-c", CONFIG_PATH, "--url", f"https://{c.lab.public_ip}/")
    bad = c.box.execute("check", "-c", CONFIG_PATH, "--url", "https://evil.test/")
    same("exit codes", (good.returncode, bad.returncode), (0, 1))
    like(
        "stderr",
        bad.stderr.decode(),
        "Result:  BLOCKED\n  Scanner: allowlist\n  Reason:  domain not in allowlist: evil.test\n",
    )


@case("process", "short-flags", DETAIL, "-c and -l are accepted")
def _(c):
    box = c.lab.sidecar(c.text, argv=("run", "-c", CONFIG_PATH, "-l", f"0.0.0.0:{PORT}"))
    same("mode", box.get("/health").json()["mode"], "strict")
    box.remove()


@case("process", "default-cmd", DETAIL, "without argv it runs, with defaults: balanced, no forward proxy")
def _(c):
    box = c.lab.sidecar(None, argv=())
    health = box.get("/health").json()
    same("mode, forward proxy", (health["mode"], health["forward_proxy_enabled"]), ("balanced", False))
    event(box, {"event": "startup"}, {"config_hash": "defaults"})
    box.remove()


@case("process", "other-port", CORE, "another port by --listen")
def _(c):
    box = c.lab.create(c.text, argv=("run", "--config", CONFIG_PATH, "--listen", "0.0.0.0:18888"))
    box.port = 18888
    c.lab.start(box)
    established(box.refused("plain.allowed.test:443"))
    same("healthcheck --addr", box.execute("healthcheck", "--addr", "127.0.0.1:18888").returncode, 0)
    same("healthcheck of the default port", box.execute("healthcheck").returncode, 1)
    box.remove()


@case("process", "hardened", CORE, "runs as 65534 without capabilities, privileges, or root-owned files")
def _(c):
    block, _how = interception(c.lab)
    text = to_yaml(strict(tls_interception=block)).encode()
    key, crt = c.lab.pki.mitm_ca
    box = c.lab.sidecar(
        None,
        files={
            CONFIG_PATH: (text, 0o400, 65534),
            "/etc/pipelock-ca.pem": (crt, 0o444, 65534),
            "/etc/pipelock-ca-key.pem": (key, 0o400, 65534),
        },
        create=(
            "--user",
            "65534:65534",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            "--pids-limit",
            "64",
            "--memory",
            "128m",
        ),
    )
    established(box.refused("plain.allowed.test:443"))
    same("healthcheck", box.execute("healthcheck").returncode, 0)
    box.remove()


@case("process", "read-only", DETAIL, "a read-only root works when the config lies on a volume")
def _(c):
    e, name = c.lab.engine, c.lab.name("ro")
    e.make(
        name,
        "--network",
        c.lab.public,
        "--read-only",
        "-v",
        "/cfg",
        "--cap-drop",
        "ALL",
        "--user",
        "65534:65534",
        c.lab.image,
        "run",
        "--config",
        "/cfg/pipelock.yaml",
        "--listen",
        f"0.0.0.0:{PORT}",
    )
    e.run("cp", "-", f"{name}:/cfg", stdin=tar_of({"/pipelock.yaml": (c.text.encode(), 0o444, 0)}))
    box = c.lab.start(Sidecar(c.lab, name))
    same("healthcheck", box.execute("healthcheck").returncode, 0)
    box.remove()


@group("signals", 12)
def _(lab: Lab) -> SimpleNamespace:
    return SimpleNamespace(lab=lab, config=strict("plain.allowed.test", "slow.test"))


@case("signals", "stop", CORE, "docker stop with an open tunnel: exit 0 well inside the grace period")
def _(c):
    box = c.lab.sidecar(c.config)
    _reply, wire = box.connect("slow.test:2222")
    with wire:
        wire.send(b"a\n")
        wire.until(b"\n")
        began = time.monotonic()
        c.lab.engine.run("stop", box.name)
        between("seconds", time.monotonic() - began, 0, 6)
    same("exit code", box.state()["ExitCode"], 0)
    event(box, {"event": "shutdown"}, {"level": "info", "reason": "signal received", "message": "pipelock stopping"})
    like("stderr", box.logs()[1], r"(?m)^Pipelock stopped\.$")
    box.remove()


@case("signals", "int", DETAIL, "SIGINT: exit 0")
def _(c):
    box = c.lab.sidecar(c.config)
    box.kill("INT")
    same("exit code", box.wait_exit(8), 0)
    box.remove()


def _rewrite(box: Sidecar, config: dict | str) -> None:
    text = config if isinstance(config, str) else to_yaml(config)
    box.lab.engine.run("cp", "-", f"{box.name}:/", stdin=tar_of({CONFIG_PATH: (text.encode(), 0o644, 0)}))
    time.sleep(0.8)


@case("signals", "hup", DETAIL, "SIGHUP reloads and says so")
def _(c):
    box = c.lab.sidecar(c.config)
    box.kill("HUP")
    event(box, {"event": "config_reload"}, {"level": "info", "status": "success", "detail": "mode=strict"})
    same("running", box.state()["Running"], True)
    box.remove()


@case("signals", "reload-widen", DETAIL, "a changed file is picked up: the allowlist may grow")
def _(c):
    box = c.lab.sidecar(c.config)
    same("before", box.refused("other.test:443").status, 403)
    _rewrite(box, {**c.config, "api_allowlist": [*c.config["api_allowlist"], "other.test"]})
    same("after", box.refused("other.test:443").status, 200)
    box.remove()


@case("signals", "reload-bad", CORE, "a broken file keeps the old config")
def _(c):
    box = c.lab.sidecar(c.config)
    _rewrite(box, to_yaml(c.config) + "foo: 1\n")
    same(
        "listed, unlisted",
        (box.refused("plain.allowed.test:443").status, box.refused("evil.test:443").status),
        (200, 403),
    )
    like("stderr", box.logs()[1], "(?m)^pipelock: config reload failed: parsing config ")
    box.remove()


@case("signals", "reload-downgrade", CORE, "strict refuses to be weakened by a reload")
def _(c):
    for change in ({"enforce": False}, {"mode": "balanced"}, {"trusted_domains": ["a.b.test"]}):
        box = c.lab.sidecar(c.config)
        _rewrite(box, {**c.config, **change})
        same(f"unlisted host after {change}", box.refused("evil.test:443").status, 403)
        found = event(box, {"event": "error", "method": "CONFIG_RELOAD"}, {"level": "error"})
        same("error", found["error"], "rejected: security downgrade from strict mode")
        box.remove()


@case("signals", "usr1", DETAIL, "SIGUSR1 turns everything off, and on again")
def _(c):
    box = c.lab.sidecar(c.config)
    _reply, wire = box.connect("slow.test:2222")
    wire.send(b"a\n")
    wire.until(b"\n")
    box.kill("USR1")
    time.sleep(0.4)
    body = {"error": "kill_switch_active", "message": "Emergency deny-all active"}
    json_error(box.refused("plain.allowed.test:443"), 503, body)
    json_error(box.get(HTTP + "/"), 503, body)
    same("health", (box.get("/health").status, box.get("/health").json()["kill_switch_active"]), (200, True))
    wire.send(b"b\n")
    same("open tunnel", wire.until(b"\n"), b"")
    wire.close()
    event(box, {"event": "kill_switch_deny"}, {"level": "info", "source": "signal"})
    box.kill("USR1")
    time.sleep(0.4)
    same("after the second", box.refused("plain.allowed.test:443").status, 200)
    box.remove()
