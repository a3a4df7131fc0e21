"""Roll a version out: migrate, replace, try, and go back where it does not work.

Variables: ``IMAGE``, the image by its digest; ``VERSION``, which it must answer with; ``PUBLIC_URL``, where the service
is reached; ``KUBECONFIG``. ``OVERLAY`` is another folder than kube/overlays/production.

Whatever happens, running it again is right. Until the migration is complete the old version serves, untouched. After
that it serves on the migrated database while the new one starts: migrations keep it working. If the new version does
not become ready, or answers wrongly, the Deployments go back to the revision before; the database stays migrated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
NAMESPACE = "customer-orders"
# The name that the manifests give the image by
PLACEHOLDER = "customer-orders"
DEPLOYMENTS = ("server", "worker")
JOB = "migrate"
REVISION = "deployment.kubernetes.io/revision"
# Seconds: how long a migration and a roll-out may take, and the public address to answer; and between two looks
MIGRATING, ROLLING, ANSWERING, PAUSE = 1800.0, 600.0, 180.0, 3.0

Manifest = dict[str, Any]


class Failed(Exception):
    """Why the version is not out, in a sentence."""


def kubectl(*arguments: str, stdin: str | None = None, timeout: float = 120.0) -> str:
    """Its output; ``Failed`` with what it says where it fails or hangs."""
    try:
        done = subprocess.run(
            ["kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"kubectl {arguments[0]} did not end within {timeout:.0f} s.") from None
    if done.returncode:
        raise Failed(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def rendered(overlay: Path, image: str) -> list[Manifest]:
    """The overlay's manifests with this image: nothing in the checkout is changed."""
    name, _, digest = image.partition("@")
    if not digest.startswith("sha256:"):
        raise Failed(f"IMAGE is '{image}': name it by its digest, as NAME@sha256:..., since a tag may change.")
    with tempfile.TemporaryDirectory() as folder:
        images = [{"name": PLACEHOLDER, "newName": name, "digest": digest}]
        # kustomize takes relative paths only, and follows links first
        base = os.path.relpath(overlay.resolve(), Path(folder).resolve())
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump({"resources": [base], "images": images}))
        return [found for found in yaml.safe_load_all(kubectl("kustomize", folder)) if found]


def apply(manifests: list[Manifest]) -> None:
    """Nothing where there is nothing."""
    if manifests:
        kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))


def is_one(manifest: Manifest, kind: str, *names: str) -> bool:
    """Whether a manifest is one of these."""
    return manifest["kind"] == kind and manifest["metadata"]["name"] in names


def migrate(job: Manifest) -> None:
    """Run the Job anew, and wait until it is complete."""
    kubectl("-n", NAMESPACE, "delete", "job", JOB, "--ignore-not-found", "--wait=true", "--timeout=100s")
    apply([job])
    deadline = time.monotonic() + MIGRATING
    while time.monotonic() < deadline:
        status = json.loads(kubectl("-n", NAMESPACE, "get", "job", JOB, "-o", "json")).get("status", {})
        reached = {found["type"] for found in status.get("conditions", []) if found["status"] == "True"}
        if "Complete" in reached:
            return
        if "Failed" in reached:
            break
        time.sleep(PAUSE)
    try:
        said = kubectl("-n", NAMESPACE, "logs", f"job/{JOB}", "--tail=50")
    except Failed as reason:
        said = str(reason)
    raise Failed(f"{said}\nThe migration failed, or did not end: see above. The version before goes on serving.")


def revisions() -> dict[str, str]:
    """Of each Deployment that there is, which revision it is at."""
    found = json.loads(kubectl("-n", NAMESPACE, "get", "deployments", "-o", "json"))["items"]
    return {each["metadata"]["name"]: each["metadata"].get("annotations", {}).get(REVISION, "") for each in found}


def settled(names: list[str]) -> None:
    """Return once all pods of these are new and ready."""
    for name in names:
        kubectl(
            "-n",
            NAMESPACE,
            "rollout",
            "status",
            f"deployment/{name}",
            f"--timeout={ROLLING:.0f}s",
            timeout=ROLLING + 30,
        )


def answer(url: str) -> bytes:
    """The body of a 200."""
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310
        body: bytes = response.read(100_000)
    return body


def smoke(public_url: str, version: str) -> None:
    """Ask from outside whether it is ready, and whether it is this version that answers."""
    deadline = time.monotonic() + ANSWERING
    while True:
        try:
            answer(f"{public_url}/readyz")
            found = json.loads(answer(f"{public_url}/api/"))["version"]
            problem = None if found == version else f"it answers with version {found} instead of {version}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"{type(error).__name__}: {error}"
        if problem is None:
            return
        if time.monotonic() > deadline:
            raise Failed(f"{public_url} is not well: {problem}.")
        time.sleep(PAUSE)


def go_back(before: dict[str, str]) -> str:
    """Undo what has a new revision, and say what came of it."""
    try:
        now = revisions()
        changed = [name for name in DEPLOYMENTS if name in before and now.get(name) != before[name]]
        for name in changed:
            kubectl("-n", NAMESPACE, "rollout", "undo", f"deployment/{name}", f"--to-revision={before[name]}")
        settled(changed)
    except Failed as reason:
        return f"Going back failed too: {reason}\nLook at once: kubectl -n {NAMESPACE} get pods"
    fresh = [name for name in DEPLOYMENTS if name not in before]
    if fresh:
        return f"There is nothing to go back to for {' and '.join(fresh)}: left as it is."
    return f"Back at the revision before: {', '.join(changed) or 'nothing had changed'}. The database stays migrated."


def deploy(overlay: Path, image: str, version: str, public_url: str, say: Callable[[str], None] = print) -> None:
    """All of it; ``Failed`` where the version is not out in the end."""
    manifests = rendered(overlay, image)
    jobs = [found for found in manifests if is_one(found, "Job", JOB)]
    deployments = [found for found in manifests if is_one(found, "Deployment", *DEPLOYMENTS)]
    if len(jobs) != 1 or len(deployments) != len(DEPLOYMENTS):
        raise Failed(f"{overlay} lacks the Job {JOB} or one of the Deployments {', '.join(DEPLOYMENTS)}.")
    if any(image not in yaml.safe_dump(found) for found in [*jobs, *deployments]):
        raise Failed(f"{overlay} does not name its image {PLACEHOLDER}: {image} is not in every one.")
    # what else runs it, such as a CronJob, has to wait for its schema too
    running = [found for found in manifests if found not in jobs and image in yaml.safe_dump(found)]
    before = revisions()
    apply([found for found in manifests if found not in jobs and found not in running])
    say(f"Migrating with {image}")
    migrate(jobs[0])
    say("Rolling out")
    try:
        apply(running)
        settled(list(DEPLOYMENTS))
        smoke(public_url, version)
    except Failed as reason:
        raise Failed(f"{reason}\n{go_back(before)}") from None
    say(f"{public_url} serves {version}")


def main() -> int:
    """Read the variables, deploy, and say in one place why not."""
    missing = [name for name in ("IMAGE", "VERSION", "PUBLIC_URL") if not os.environ.get(name)]
    if missing:
        print(f"These variables are not set: {', '.join(missing)}.", file=sys.stderr)
        return 2
    overlay = ROOT / os.environ.get("OVERLAY", "kube/overlays/production")
    try:
        deploy(overlay, os.environ["IMAGE"], os.environ["VERSION"], os.environ["PUBLIC_URL"].rstrip("/"))
    except Failed as reason:
        print(reason, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
