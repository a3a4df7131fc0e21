"""The image of the Dockerfile, built without a registry and run without a container engine.

mmdebstrap makes a Debian with Python to stand on, buildah builds, and bubblewrap runs the result as an engine would:
as its user, without a capability, as process 1, with nothing to write to but ``/tmp``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from ast import literal_eval
from contextlib import contextmanager
from pathlib import Path
from platform import freedesktop_os_release
from typing import TYPE_CHECKING, Any

import psutil

from serving import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

# Each program that this needs, and the Debian package that has it.
NEEDED = {"mmdebstrap": "mmdebstrap", "buildah": "buildah", "bwrap": "bubblewrap", "setpriv": "util-linux"}
# What pip has to be told, in a build too, to reach an index by this machine's way. What lies on its disk stays out.
PIP_KEYS = ("index-url", "extra-index-url", "cert", "proxy", "trusted-host", "default-timeout")
CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")


def lacking() -> str:
    """What this machine lacks, and what to do about it, or nothing."""
    if os.geteuid() != 0:
        return "to make a Debian and to become another user takes root; run it as root, such as in a container."
    packages = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    if packages:
        return f"apt-get install {' '.join(packages)}"
    tried = subprocess.run(
        ["bwrap", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-pid", "true"],
        capture_output=True,
        text=True,
    )
    return f"namespaces: {tried.stderr}" if tried.returncode else ""


def run(*words: str, **more: Any) -> str:
    """What a command prints. Fails with all that it said."""
    done = subprocess.run(words, capture_output=True, text=True, **more)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def debian(folder: Path) -> Path:
    """A tar of the Debian that the Dockerfile stands on unless told, with Python, by this machine's way to Debian."""
    suite = re.search(r"ARG PYTHON_IMAGE=\S+-slim-(\w+)", (ROOT / "Dockerfile").read_text())
    assert suite is not None
    # apt's proxies and certificates
    options = folder / "apt.conf"
    options.write_text(run("apt-config", "dump", "Acquire"))
    system, mirror = freedesktop_os_release(), []
    if system["ID"] == "debian":
        asked = run(
            "apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"
        )
        own = f"{system['VERSION_CODENAME']} main "
        mirror = [line.removeprefix(own) for line in asked.splitlines() if line.startswith(own)][:1]
    made = folder / "base.tar"
    packages = "--include=python3,python3-venv,ca-certificates"
    run("mmdebstrap", "--variant=minbase", packages, f"--aptopt={options}", suite[1], str(made), *mirror)
    return made


def pip_settings() -> dict[str, str]:
    """How pip reaches its index here: files first, variables over them."""
    told = run(sys.executable, "-m", "pip", "config", "list")
    lines = [line.partition("=") for line in told.splitlines()]
    found = {key.rpartition(".")[2]: str(literal_eval(value)) for key, _, value in lines}
    kept = {key: found[key] for key in PIP_KEYS if key in found}
    return {key: value for key, value in kept.items() if not value.startswith("file:")}


class Builder:
    """buildah with a storage of its own in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        storage = folder / "storage.conf"
        storage.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/storage"\nrunroot = "{folder}/running"\n')
        self.environ = {**os.environ, "CONTAINERS_STORAGE_CONF": str(storage), "BUILDAH_ISOLATION": "chroot"}

    def __call__(self, *words: str) -> str:
        """What ``buildah`` prints."""
        return run("buildah", *words, env=self.environ).strip()

    def imported(self, tar: Path, name: str) -> str:
        """An image of a root's files, under ``name``."""
        made = self("from", "scratch")
        self("add", "--quiet", made, str(tar), "/")
        self("commit", "--quiet", made, name)
        self("rm", made)
        return name

    def make(self, base: str, name: str, source: str) -> Image:
        """What ``make image`` makes, standing on ``base``."""
        pip = pip_settings()
        secret = self.folder / "pip.conf"
        secret.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in pip.items()))
        arguments = [f"--secret id=pip.conf,src={secret}"]
        if "cert" in pip:
            arguments.append(f"--volume {pip['cert']}:{pip['cert']}:ro")
        told = {"BUILDER": "buildah", "BUILD_ARGS": " ".join(arguments), "IMAGE": name, "PYTHON_IMAGE": base}
        words = [f"{key}={value}" for key, value in {**told, "IMAGE_SOURCE": source}.items()]
        run("make", "image", *words, cwd=ROOT, env=self.environ)
        version = re.search(r"(?m)^version = (.+)$", (ROOT / "setup.cfg").read_text())
        assert version is not None
        return Image(self, f"{name}:{version[1]}")


class Image:
    """An image of ``builder``: its ``config``, the ``root`` of its files, its ``size`` in words."""

    def __init__(self, builder: Builder, name: str) -> None:
        self.config: dict[str, Any] = json.loads(builder("inspect", "--type", "image", name))["Docker"]["config"]
        self.root = Path(builder("mount", builder("from", name)))
        self.size = builder("images", "--format", "{{.Size}}", name)

    def words(self, command: list[str], environ: dict[str, str], binds: dict[Path, str]) -> list[str]:
        """What runs ``command`` in it, with files of this machine, ``binds``, at places below its ``/tmp``."""
        user, group = self.config["User"].split(":")
        named = dict(variable.split("=", 1) for variable in self.config["Env"]) | environ
        return [
            *("bwrap", "--ro-bind", str(self.root), "/", "--dev", "/dev", "--proc", "/proc"),
            *("--perms", "1777", "--tmpfs", "/tmp"),
            # of its own accord it makes folders that root alone may enter
            *(word for place in binds.values() for word in ("--perms", "0755", "--dir", str(Path(place).parent))),
            *(word for file, place in binds.items() for word in ("--bind", str(file), place)),
            *("--unshare-pid", "--as-pid-1", "--die-with-parent", "--clearenv"),
            *(word for name, value in named.items() for word in ("--setenv", name, value)),
            # to become the user, who has none of them
            *(word for capability in CAPABILITIES for word in ("--cap-add", capability)),
            *("setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--no-new-privs"),
            *("--inh-caps=-all", "--bounding-set=-all", *command),
        ]

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run ``command`` in it to its end."""
        return subprocess.run(self.words([*command], environ, {}), capture_output=True, text=True, timeout=120)


class Deployment:
    """What an operator runs from an image, with variables, and files below ``/tmp``."""

    def __init__(self, image: Image, log: Path, environ: dict[str, str], binds: dict[Path, str]) -> None:
        self.image, self.log, self.environ, self.binds = image, log, environ, binds

    def said(self) -> str:
        """All that was printed, by each of its processes."""
        return self.log.read_text()

    def does(self, *command: str) -> int:
        """How ``command`` ends."""
        with self.log.open("ab") as log:
            words = self.image.words([*command], self.environ, self.binds)
            return subprocess.run(words, stdout=log, stderr=log, timeout=120).returncode

    @contextmanager
    def running(self, *command: str, **environ: str) -> Iterator[Process]:
        """A process of ``command``, for a while, with more variables."""
        with self.log.open("ab") as log:
            words = self.image.words([*command], self.environ | environ, self.binds)
            process = Process(subprocess.Popen(words, stdout=log, stderr=log))
        try:
            yield process
        finally:
            process.kill()


class Process:
    """A process in an image: process 1 there, ``bwrap``'s child here."""

    def __init__(self, outer: subprocess.Popen[bytes]) -> None:
        self._outer = outer

    def ended(self) -> bool:
        """Whether it is over."""
        return self._outer.poll() is not None

    def terminate(self) -> int:
        """Have it end as an engine does it, and tell its exit status."""
        (inner,) = psutil.Process(self._outer.pid).children()
        inner.terminate()
        return self._outer.wait(60)

    def kill(self) -> None:
        """End it, if it is not over; what is in it ends with it."""
        self._outer.kill()
        self._outer.wait(60)
