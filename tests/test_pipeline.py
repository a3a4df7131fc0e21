"""The workflows of .github/, and the scripts that they run: releasing and deploying."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from webtest import TestApp

from loopback import Answer, Provider, provider
from pipeline import script
from serving import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
JOBS = {
    f"{path.stem}.{name}": job for path in WORKFLOWS for name, job in yaml.safe_load(path.read_text())["jobs"].items()
}
IMAGE = "registry.example/acme/customer-orders@sha256:" + "ab" * 32


release = script("release")


class TestWorkflows:
    def test_they_are_all_here(self):
        assert [path.stem for path in WORKFLOWS] == ["ci", "codeql", "deploy", "release"]

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
    def test_nothing_is_allowed_that_no_job_asks_for(self, path):
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {}
        assert workflow["concurrency"]["group"]
        # YAML reads the key `on` as true
        assert "pull_request_target" not in workflow[True]

    @pytest.mark.parametrize("name", JOBS)
    def test_every_job_has_an_end_and_its_own_permissions(self, name):
        assert JOBS[name]["permissions"]
        assert "uses" in JOBS[name] or JOBS[name]["timeout-minutes"] <= 90

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
    def test_every_action_is_pinned_and_tells_its_version(self, path):
        used = re.findall(r"uses: (.+)", path.read_text())
        assert used
        for line in used:
            assert line.startswith("$/.github/") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line

    def test_an_action_is_the_same_everywhere(self):
        used = {line for path in WORKFLOWS for line in re.findall(r"uses: ([\w/-]+@\w+)", path.read_text())}
        names = [re.sub(r"@.*", "", line) for line in used]
        assert sorted(names) == sorted(set(names))

    @pytest.mark.parametrize("name", JOBS)
    def test_no_expression_becomes_part_of_a_script(self, name):
        steps = JOBS[name].get("steps", [])
        assert [step["run"] for step in steps if "${{" in step.get("run", "")] == []
        assert all(step["with"]["persist-credentials"] is False for step in steps if "checkout" in step.get("uses", ""))

    def test_production_is_approved_and_nothing_is_published_untested(self):
        assert JOBS["deploy.production"]["environment"]["name"] == "production"
        assert {"pypi", "image"} <= {
            name.removeprefix("release.") for name in JOBS if "test" in JOBS[name].get("needs", [])
        }

    def test_every_make_target_and_script_that_they_run_is_there(self):
        run = "\n".join(step["run"] for job in JOBS.values() for step in job.get("steps", []) if "run" in step)
        assert set(re.findall(r"\.github/scripts/\w+\.py", run)) == {
            ".github/scripts/release.py",
            ".github/scripts/deploy.py",
        }
        targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
        # the image has its own developer's target
        assert set(re.findall(r"make ([a-z-]+)", run)) - targets <= {"image"}

    def test_the_runner_has_what_must_not_be_lacking(self):
        """Root is who installs in .ci/run, and there it is nobody's."""
        wanted = set(" ".join(re.findall(r"lacking\+=\((.+)\)", (ROOT / ".ci" / "run").read_text())).split())
        (install,) = [step["run"] for step in JOBS["ci.test"]["steps"] if "apt-get install" in step.get("run", "")]
        # a Python of setup-python's, and Chrome
        there = {"make", "python3", "python3-venv", "chromium"}
        assert wanted - there == set(install.partition("--no-install-recommends ")[2].split())


class TestRelease:
    @pytest.fixture
    def root(self, tmp_path):
        (tmp_path / "plugins" / "one").mkdir(parents=True)
        for folder in (tmp_path, tmp_path / "plugins" / "one"):
            (folder / "setup.cfg").write_text("[metadata]\nversion = 1.2.0\n")
        (tmp_path / "CHANGELOG.md").write_text(
            "# Changelog\n\n## 1.2.0, 2026-11-30\n\n### For callers\n\n* New.\n\n## 1.1.0, 2026-10-01\n\n* Old.\n"
        )
        return tmp_path

    def test_the_version_where_all_agree(self, root):
        assert release.check(root, "v1.2.0") == "1.2.0"

    @pytest.mark.parametrize("tag", ["1.2.0", "v1.2", "v1.2.0-rc1", "v1.2.0\n", "vfoo"])
    def test_a_tag_that_is_no_version(self, root, tag):
        with pytest.raises(release.NotReady, match="is not v and a version"):
            release.check(root, tag)

    def test_everything_that_disagrees_is_said_at_once(self, root):
        with pytest.raises(release.NotReady) as caught:
            release.check(root, "v1.3.0")
        assert str(caught.value).splitlines() == [
            "setup.cfg says version = 1.2.0, and the tag v1.3.0.",
            "plugins/one/setup.cfg says version = 1.2.0, and the tag v1.3.0.",
            "CHANGELOG.md has no section '## 1.3.0, DATE'.",
        ]

    @pytest.mark.parametrize(
        ("heading", "text", "said"),
        [
            ("1.2.0, not released yet", "* New.", "write '## 1.2.0, ' and the day"),
            ("1.2.0", "* New.", "write '## 1.2.0, ' and the day"),
            ("1.2.0, 2026-11-30", "", "says nothing of 1.2.0"),
        ],
    )
    def test_a_changelog_that_is_not_ready(self, root, heading, text, said):
        (root / "CHANGELOG.md").write_text(f"# Changelog\n\n## {heading}\n\n{text}\n")
        with pytest.raises(release.NotReady, match=re.escape(said)):
            release.check(root, "v1.2.0")

    def test_the_notes_are_one_versions(self, root):
        text = (root / "CHANGELOG.md").read_text()
        assert release.section(text, "1.2.0")[1] == "### For callers\n\n* New."
        assert release.section(text, "1.1.0")[1] == "* Old."
        with pytest.raises(release.NotReady):
            release.section(text, "1.2")

    def test_our_own_changelog_has_notes_of_our_own_version(self, capsys):
        version = re.search(r"(?m)^version = (.+)$", (ROOT / "setup.cfg").read_text())
        assert version is not None
        assert release.main(["notes", version[1]]) == 0
        assert "### Running the service" in capsys.readouterr().out

    def test_it_says_why_not_and_how_it_is_called(self, capsys):
        assert release.main(["check", "nonsense"]) == 1
        assert "is not v and a version" in capsys.readouterr().err
        assert release.main([]) == 2


# A cluster in a file, for what deploy.py asks of kubectl: it remembers every call, and fails as it is told.
KUBECTL = """#!{python}
import json, pathlib, sys
import yaml

place = pathlib.Path({state!r})
state = json.loads(place.read_text())
arguments = [part for part in sys.argv[1:] if part not in ("-n", "customer-orders")]
call = " ".join(arguments)
manifests = [found for found in yaml.safe_load_all(sys.stdin.read())] if arguments[0] == "apply" else []
if manifests:
    call = "apply " + " ".join(found["kind"] + "/" + found["metadata"]["name"] for found in manifests)
if arguments[0] == "kustomize":
    call = "kustomize"
state["calls"].append(call)
out, code = "", 0
if arguments[0] == "kustomize":
    folder = pathlib.Path(arguments[1])
    said = yaml.safe_load((folder / "kustomization.yaml").read_text())
    (image,) = said["images"]
    text = (folder / said["resources"][0] / "all.yaml").read_text()
    out = text.replace("image: " + image["name"] + "\\n", "image: " + image["newName"] + "@" + image["digest"] + "\\n")
elif call == "get deployments -o json":
    out = json.dumps({{"items": [
        {{"metadata": {{"name": name, "annotations": {{"deployment.kubernetes.io/revision": str(of)}}}}}}
        for name, of in state["revisions"].items()]}})
elif call == "get job migrate -o json":
    out = json.dumps({{"status": {{"conditions": state["looks"].pop(0) if state["looks"] else []}}}})
elif arguments[0] == "logs":
    out = "no such column: orders.colour"
elif arguments[0] == "apply":
    for found in manifests:
        name = found["metadata"]["name"]
        if found["kind"] == "Deployment" and name not in state["unchanged"]:
            state["revisions"][name] = state["revisions"].get(name, 0) + 1
if any(call.startswith(start) for start in state["failing"]):
    out, code = "", 1
    state["failing"] = [start for start in state["failing"] if not call.startswith(start)]
    print("not within the time", file=sys.stderr)
place.write_text(json.dumps(state))
sys.stdout.write(out)
sys.exit(code)
"""

COMPLETE = [{"type": "Complete", "status": "True"}]
MANIFESTS = [
    ("ConfigMap", "settings"),
    ("Service", "server"),
    ("Job", "migrate"),
    ("CronJob", "prune"),
    ("Deployment", "server"),
    ("Deployment", "worker"),
]


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.place = folder / "state.json"
        self.set(calls=[], revisions={"server": 7, "worker": 5}, looks=[[], COMPLETE], failing=[], unchanged=[])
        command = folder / "bin" / "kubectl"
        command.parent.mkdir()
        command.write_text(KUBECTL.format(python=sys.executable, state=str(self.place)))
        command.chmod(0o755)
        self.overlay = folder / "overlay"
        self.overlay.mkdir()
        self.manifests("customer-orders")

    def manifests(self, image: str, kinds: list[tuple[str, str]] = MANIFESTS) -> None:
        documents = [
            {
                "kind": kind,
                "metadata": {"name": name},
                **({"spec": {"image": image}} if kind in {"Job", "CronJob", "Deployment"} else {}),
            }
            for kind, name in kinds
        ]
        (self.overlay / "all.yaml").write_text(yaml.safe_dump_all(documents))

    def set(self, **changes: Any) -> None:
        now = json.loads(self.place.read_text()) if self.place.exists() else {}
        self.place.write_text(json.dumps(now | changes))

    @property
    def calls(self) -> list[str]:
        return json.loads(self.place.read_text())["calls"]


class TestDeploy:
    @pytest.fixture
    def deploy(self, monkeypatch):
        module = script("deploy")
        monkeypatch.setattr(module, "PAUSE", 0.01)
        # one look
        monkeypatch.setattr(module, "ANSWERING", 0.0)
        return module

    @pytest.fixture
    def cluster(self, tmp_path, monkeypatch):
        cluster = Cluster(tmp_path)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        return cluster

    @pytest.fixture
    def site(self) -> Iterator[Provider]:
        with provider() as site:
            yield site

    @staticmethod
    def serves(site: Provider, version: str) -> None:
        site.answer = lambda asked: Answer({"version": version})

    def run(self, deploy: ModuleType, cluster: Cluster, site: Provider) -> None:
        deploy.deploy(cluster.overlay, IMAGE, "1.2.0", site.url, lambda line: None)

    def test_migrates_before_anything_is_replaced(self, deploy, cluster, site):
        self.serves(site, "1.2.0")
        self.run(deploy, cluster, site)
        assert cluster.calls == [
            "kustomize",
            "get deployments -o json",
            "apply ConfigMap/settings Service/server",
            "delete job migrate --ignore-not-found --wait=true --timeout=100s",
            "apply Job/migrate",
            "get job migrate -o json",
            "get job migrate -o json",
            "apply CronJob/prune Deployment/server Deployment/worker",
            "rollout status deployment/server --timeout=600s",
            "rollout status deployment/worker --timeout=600s",
        ]
        assert [asked.path for asked in site.asked] == ["/readyz", "/api/"]

    def test_a_failed_migration_leaves_the_version_before_alone(self, deploy, cluster, site):
        cluster.set(looks=[[{"type": "Failed", "status": "True"}]])
        with pytest.raises(deploy.Failed, match=r"(?s)orders\.colour.*The migration failed"):
            self.run(deploy, cluster, site)
        assert not any("Deployment" in call or "rollout" in call for call in cluster.calls)

    def test_a_migration_without_end(self, deploy, cluster, site, monkeypatch):
        monkeypatch.setattr(deploy, "MIGRATING", 0.0)
        with pytest.raises(deploy.Failed, match="The migration failed, or did not end"):
            self.run(deploy, cluster, site)

    def test_what_does_not_become_ready_is_undone(self, deploy, cluster, site):
        cluster.set(failing=["rollout status deployment/worker"])
        with pytest.raises(
            deploy.Failed, match=r"(?s)not within the time.*Back at the revision before: server, worker"
        ):
            self.run(deploy, cluster, site)
        assert cluster.calls[-4:] == [
            "rollout undo deployment/server --to-revision=7",
            "rollout undo deployment/worker --to-revision=5",
            "rollout status deployment/server --timeout=600s",
            "rollout status deployment/worker --timeout=600s",
        ]

    def test_what_has_no_new_revision_is_not_undone(self, deploy, cluster, site):
        """Undoing it would lead to the revision before the last one that worked."""
        cluster.set(failing=["rollout status deployment/server"], unchanged=["worker"])
        with pytest.raises(deploy.Failed, match="Back at the revision before: server"):
            self.run(deploy, cluster, site)
        assert [call for call in cluster.calls if "undo" in call] == ["rollout undo deployment/server --to-revision=7"]

    def test_the_wrong_version_at_the_door_is_undone(self, deploy, cluster, site):
        self.serves(site, "1.1.0")
        with pytest.raises(deploy.Failed, match=r"(?s)version 1\.1\.0 instead of 1\.2\.0.*Back at"):
            self.run(deploy, cluster, site)

    def test_what_it_asks_from_outside_the_service_tells_anybody(self, deploy, site, make_app):
        client = TestApp(make_app("sqlite"))

        def answer(asked):
            told = client.get(asked.path, status="*")
            return Answer(told.body, told.status_int)

        site.answer = answer
        deploy.smoke(site.url, version("customer-orders"))
        assert [asked.path for asked in site.asked] == ["/readyz", "/api/"]

    def test_the_version_before_may_answer_for_a_while(self, deploy, cluster, site, monkeypatch):
        monkeypatch.setattr(deploy, "ANSWERING", 60.0)
        versions = iter(["1.1.0", "1.1.0", "1.2.0"])
        site.answer = lambda asked: Answer({"version": next(versions)} if asked.path == "/api/" else {})
        self.run(deploy, cluster, site)
        assert next(versions, None) is None

    @pytest.mark.parametrize("answer", [Answer({"version": "1.2.0"}, status=503), Answer(b"no JSON"), Answer([])])
    def test_an_unready_service_is_undone(self, deploy, cluster, site, answer):
        site.answer = lambda asked: answer
        with pytest.raises(deploy.Failed, match=r"(?s)is not well.*Back at"):
            self.run(deploy, cluster, site)

    def test_the_first_time_there_is_nothing_to_go_back_to(self, deploy, cluster, site):
        cluster.set(revisions={}, failing=["rollout status"])
        with pytest.raises(deploy.Failed, match="nothing to go back to for server and worker"):
            self.run(deploy, cluster, site)
        assert not any("undo" in call for call in cluster.calls)

    def test_going_back_may_fail_too_and_neither_is_hushed_up(self, deploy, cluster, site):
        cluster.set(failing=["rollout status deployment/server", "rollout undo"])
        with pytest.raises(deploy.Failed, match=r"(?s)rollout status.*Going back failed too.*get pods"):
            self.run(deploy, cluster, site)

    def test_an_image_by_its_tag_is_refused(self, deploy, cluster, site):
        with pytest.raises(deploy.Failed, match="name it by its digest"):
            deploy.deploy(cluster.overlay, "registry.example/customer-orders:1.2.0", "1.2.0", site.url)
        assert cluster.calls == []

    def test_manifests_without_our_image_are_refused(self, deploy, cluster, site):
        cluster.manifests("something/else:1")
        with pytest.raises(deploy.Failed, match="does not name its image customer-orders"):
            self.run(deploy, cluster, site)
        assert cluster.calls == ["kustomize"]

    def test_manifests_that_lack_one_are_refused(self, deploy, cluster, site):
        cluster.manifests("customer-orders", MANIFESTS[:-1])
        with pytest.raises(deploy.Failed, match="lacks the Job migrate or one of the Deployments server, worker"):
            self.run(deploy, cluster, site)

    @pytest.mark.skipif(shutil.which("kubectl") is None, reason="kustomize itself needs kubectl")
    def test_kustomize_puts_the_image_in(self, deploy, tmp_path):
        pod = {"spec": {"containers": [{"name": "server", "image": "customer-orders"}]}}
        found = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "server"},
            "spec": {"template": pod},
        }
        (tmp_path / "server.yaml").write_text(yaml.safe_dump(found))
        (tmp_path / "kustomization.yaml").write_text("resources: [server.yaml]\n")
        (manifest,) = deploy.rendered(tmp_path, IMAGE)
        assert manifest["spec"]["template"]["spec"]["containers"][0]["image"] == IMAGE
        assert sorted(path.name for path in tmp_path.iterdir()) == ["kustomization.yaml", "server.yaml"]

    def test_its_variables_are_asked_for_at_once(self, deploy, monkeypatch, capsys):
        for name in ("IMAGE", "VERSION", "PUBLIC_URL"):
            monkeypatch.delenv(name, raising=False)
        assert deploy.main() == 2
        assert "IMAGE, VERSION, PUBLIC_URL" in capsys.readouterr().err
