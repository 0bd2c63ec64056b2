"""What exists while a bottle runs and after it, as flat fields that two launchers can be compared by.

Everything the engine says is taken, less what differs between any two starts of one launcher: ids, addresses, times.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .conftest import docker

Fields = dict[str, str]
AGENT_SOCKET = "/run/claude-bottle-agent-public.sock"
PID_FILE = "/dev/shm/fx-pid"  # in memory, so that no list of changed files has it

# Ids, addresses, times, and the engine's own paths that are made of ids.
PASSING = (
    *("Id", "ExecIDs", "EndpointID", "NetworkID", "SandboxID", "SandboxKey", "Pid", "Created", "StartedAt", "Health"),
    *("Gateway", "IPAM", "IPAddress", "IPPrefixLen", "IPv4Address", "IPv6Address", "MacAddress"),
    *("GraphDriver", "HostnamePath", "HostsPath", "LogPath", "ResolvConfPath"),
)

# Runs with node in the bottle. Its stdin names paths, and folders to walk. What it may not see it leaves out: it runs
# as node and as root, and a root without capabilities reads nothing of node's.
LOOK = r"""
const fs = require('fs'), crypto = require('crypto'), keys = require('child_process'), files = {};
const text = (path) => fs.readFileSync(path).toString();
function look(path) {
  const s = fs.lstatSync(path), mode = (s.mode & 0o7777).toString(8), whose = `${s.uid}:${s.gid} ${mode}`;
  const kind = s.isDirectory() ? 'folder' : s.isSymbolicLink() ? `link to ${fs.readlinkSync(path)}`
    : s.isFile() ? crypto.createHash('sha256').update(fs.readFileSync(path)).digest('hex') : 'special';
  files[path] = `${whose} ${kind}`;
  return s.isDirectory() ? fs.readdirSync(path) : [];
}
const may = (act) => (path) => { try { act(path); } catch (e) { if (!/EACCES|ENOENT|EPERM/.test(e.code)) throw e; } };
const walk = may((path) => look(path).forEach((name) => walk(`${path}/${name}`)));
const wanted = JSON.parse(text(0));
wanted.paths.forEach(may(look));
wanted.trees.forEach(walk);
const pairs = (lines, at) => Object.fromEntries(lines.filter(Boolean).map(at));
const mount = (line) => { const [, to, type, options] = line.split(' ');
  return [to, type === 'overlay' ? type : `${type} ${options}`]; };
const session = (proc) => ({
  argv: text(`${proc}/cmdline`).split('\0').slice(0, -1),
  cwd: fs.readlinkSync(`${proc}/cwd`),
  streams: [0, 1, 2].map((fd) => fs.readlinkSync(`${proc}/fd/${fd}`)),
  env: pairs(text(`${proc}/environ`).split('\0'), (e) => [e.split('=', 1)[0], e.slice(e.indexOf('=') + 1)]),
  status: pairs(text(`${proc}/status`).split('\n').filter((l) => /^(Umask|[UG]id|Groups|Cap|NoNew|Seccomp:)/.test(l)),
    (l) => l.split(/:\s+/)),
  limits: text(`${proc}/limits`),
  mounts: pairs(text(`${proc}/mounts`).split('\n'), mount),
  'resolv.conf': text('/etc/resolv.conf'),
  keys: keys.spawnSync('ssh-add', ['-l'], {env: {...process.env, SSH_AUTH_SOCK: process.argv[2]}}).stdout.toString(),
});
console.log(JSON.stringify({files, session: process.getuid() ? session(`/proc/${text(process.argv[1]).trim()}`) : {}}));
"""


def flat(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield every leaf with its place; null and empty lists and objects, all the same to the engine, yield nothing."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from flat(inner, f"{place}.{name}" if place else name)
    elif value is not None and value != []:
        yield place, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def settled(value: Any) -> Any:
    """Return what the engine says without what passes; environments become objects."""
    if isinstance(value, list):
        return [settled(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    kept = {name: settled(inner) for name, inner in value.items() if name not in PASSING}
    if isinstance(kept.get("Env"), list):
        kept["Env"] = dict(pair.split("=", 1) for pair in kept["Env"])
    return kept


def own(words: str, slug: str) -> list[str]:
    """Return the names of a kind of thing that are of this slug, sorted."""
    return sorted(name for name in docker(*words.split()).split() if slug in name)


def running(slug: str, container: str, folders: list[str], tmp: Path) -> Fields:
    """Return what exists while a session of this slug runs.

    Args:
        slug: of the agent; no other name on the engine has it.
        container: the agent's name.
        folders: of the bottle, to be looked at whole.
        tmp: the launcher's folder for temporary files.
    """
    sidecar, networks = f"claude-bottle-pipelock-{slug}", [f"claude-bottle-{kind}-{slug}" for kind in ("net", "egress")]
    boxes = json.loads(docker("inspect", container, sidecar))
    nets = json.loads(docker("network", "inspect", *networks))
    ids = {thing["Id"]: thing["Name"].lstrip("/") for thing in (*boxes, *nets)}
    seen = {
        "containers": own("ps -a --format {{.Names}}", slug),
        "networks": own("network ls --format {{.Name}}", slug),
        "agent": boxes[0],
        "sidecar": boxes[1],
        "internal": nets[0],
        "egress": nets[1],
        "bottle": in_bottle(container, folders),
        "sidecar files": {path: first_member(sidecar, path) for path in changed(sidecar)},
        "processes": processes(container),
        "sidecar processes": processes(sidecar),
        "stage": on_host(tmp),
    }
    text = json.dumps(seen)
    for identity, name in ids.items():
        text = text.replace(identity, name).replace(identity[:12], name)
    text = re.sub(r"(claude-bottle-stage\.)[A-Za-z0-9]{6}", r"\1XXXXXX", text)
    return dict(flat(settled(json.loads(text))))


def changed(container: str) -> dict[str, str]:
    """Return what differs from the image: path, and whether it was added, changed or deleted."""
    return {line[2:]: line[0] for line in docker("diff", container).splitlines()}


def in_bottle(container: str, folders: list[str]) -> dict[str, Any]:
    kinds = changed(container)
    wanted = json.dumps({"paths": [path for path, kind in kinds.items() if kind != "D"], "trees": folders})
    root, node = (look_as(user, container, wanted) for user in ("root", "node"))
    files = {**root["files"], **node["files"]}
    assert set(files) >= {path for path, kind in kinds.items() if kind != "D"}
    return {"changed": kinds, "files": files, "session": node["session"]}


def look_as(user: str, container: str, wanted: str) -> Any:
    words = ["docker", "exec", "-i", "-u", user, container, "node", "-e", LOOK, PID_FILE, AGENT_SOCKET]
    done = subprocess.run(words, input=wanted, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def first_member(container: str, path: str) -> dict[str, Any]:
    """Return owner, mode and content of one path; a sidecar has no tools to ask."""
    with subprocess.Popen(["docker", "cp", f"{container}:{path}", "-"], stdout=subprocess.PIPE) as child:
        with tarfile.open(fileobj=child.stdout, mode="r|") as tar:
            info = tar.next()
            assert info is not None
            file = tar.extractfile(info)
            content = file.read().decode() if file else ""
        child.kill()
    return told(path, f"{info.uid}:{info.gid} {info.mode:o} {info.linkname}", content)


def told(path: str, kind: str, content: str) -> dict[str, Any]:
    """Return a file's kind and content; that of some as lines, so that those that one side adds can be told."""
    return {"kind": kind, "content": Counter(content.split("\n")) if path.endswith((".yaml", ".env")) else content}


def processes(container: str) -> dict[str, int]:
    lines = docker("top", container, "-eo", "pid,uid,args").splitlines()[1:]
    # The engine's own probe; what renews a lease, after a while; and, in brackets, whoever is about to end and has no
    # words any more.
    kept = (line for line in lines if not re.search(r"healthcheck|--renew|runc init|<defunct>|\d \[\w+\]$", line))
    return Counter(" ".join(line.split()[1:]) for line in kept)


def on_host(folder: Path) -> dict[str, Any]:
    """Return all that is in a folder of the host: relative path, mode and content."""
    return {str(path.relative_to(folder)): _on_host(path) for path in sorted(folder.rglob("*"))}


def files(folder: Path) -> list[str]:
    """Return the files in a folder, which need not exist, by relative path."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def _on_host(path: Path) -> dict[str, Any]:
    mode = path.lstat().st_mode
    content = os.readlink(path) if stat.S_ISLNK(mode) else path.read_text() if stat.S_ISREG(mode) else ""
    return told(path.name, f"{mode:o}", content)


def afterwards(slug: str) -> Mapping[str, list[str]]:
    """Return what the engine still has of a slug."""
    return {
        "containers": own("ps -a --format {{.Names}}", slug),
        "networks": own("network ls --format {{.Name}}", slug),
        "images": own("image ls --format {{.Repository}}:{{.Tag}}", slug),
        "unnamed images": docker("image", "ls", "-q", "--filter", f"label=claude-bottle.slug={slug}").split(),
    }
