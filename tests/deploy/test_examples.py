"""The job examples, each checked by the validator or schema of the system that it is for."""

from __future__ import annotations

import json
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
import typer
import yaml
from referencing.jsonschema import DRAFT4

from geocfl._version import __version__

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "deploy"
DASK = "python://dask_kubernetes/operator/customresources/templates.yaml"


def program(name: str) -> str:
    """A linter that a package has put beside Python."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        pytest.skip(f"{name} is not installed")
    return str(path)


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text(encoding="utf-8")))


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command of geocfl in the examples, without its values in the end."""
    for job in documents("kubernetes_job.yaml"):
        yield "kubernetes_job.yaml", job["spec"]["template"]["spec"]["containers"][0]["args"]
    for template in documents("argo_workflow.yaml")[0]["spec"]["templates"]:
        if "container" in template:
            yield "argo_workflow.yaml", template["container"]["args"]
    definition = json.loads((EXAMPLES / "aws_batch_definition.json").read_text())
    yield "aws_batch_definition.json", definition["containerProperties"]["command"]
    script = (EXAMPLES / "slurm_array.sh").read_text().replace("\\\n", " ").replace("# ", "")
    for line in script.splitlines():
        if " geocfl " in f" {line}":
            yield "slurm_array.sh", shlex.split(line.partition("geocfl ")[2].partition("||")[0].replace("'", ""))


def test_commands_have_these_options() -> None:
    """An option that is renamed must be so here, too."""
    import geocfl.cli

    group = typer.main.get_command(geocfl.cli.app)
    found = [(name, words) for name, words in commands() if not words[0].startswith("-")]
    assert len(found) == 7
    for name, (command, *rest) in found:
        known = {option for parameter in group.commands[command].params for option in parameter.opts}  # type: ignore[attr-defined]
        options = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert options <= known, name


def test_slurm_array() -> None:
    script = EXAMPLES / "slurm_array.sh"
    checked = subprocess.run([program("shellcheck"), str(script)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(("stopped", "requeued"), [(0, False), (3, False), (143, True)])
def test_slurm_array_requeues_what_was_stopped(tmp_path: Path, stopped: int, requeued: bool) -> None:
    for name, code in (("srun", f'echo "$@" > srun.txt; exit {stopped}'), ("scontrol", 'echo "$@" > scontrol.txt')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3"}
    done = subprocess.run(
        ["bash", str(EXAMPLES / "slurm_array.sh"), "scenes.txt", "my maps"], cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == stopped
    assert (
        "--list scenes.txt --out my maps --shard auto --events my maps/17-3.jsonl"
        in (tmp_path / "srun.txt").read_text()
    )
    assert (tmp_path / "my maps").is_dir()
    asked = (tmp_path / "scontrol.txt").read_text() if requeued else ""
    assert (tmp_path / "scontrol.txt").exists() is requeued
    assert asked == ("requeue 17_3\n" if requeued else "")


@pytest.mark.integration
def test_dask_jobqueue() -> None:
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    example = runpy.run_path(str(EXAMPLES / "dask_jobqueue_slurm.py"))
    with example["cluster"]() as workers:
        script = workers.job_script()
    assert "#SBATCH --cpus-per-task=4" in script
    assert "#SBATCH --signal=TERM@60" in script
    assert "--nthreads 2" in script
    assert "--lifetime 3h50m" in script


def test_kubernetes_job() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    jobs = documents("kubernetes_job.yaml")
    for job in jobs:
        validator.validate(job, "1.33", strict=True)
    with pytest.raises(validator.ValidationError):
        validator.validate(jobs[0] | {"spec": jobs[0]["spec"] | {"completion": 1}}, "1.33", strict=True)
    shares = jobs[0]["spec"]
    (environment,) = [
        each["value"]
        for each in shares["template"]["spec"]["containers"][0]["env"]
        if each["name"] == "JOB_COMPLETIONS"
    ]
    assert environment == str(shares["completions"])


def test_dask_kubernetes() -> None:
    (cluster,) = documents("dask_kubernetes.yaml")
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for part in ("worker", "scheduler"):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": part}, "spec": cluster["spec"][part]["spec"]}
        validator.validate(pod, "1.33", strict=True)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s"},
        "spec": cluster["spec"]["scheduler"]["service"],
    }
    validator.validate(service, "1.33", strict=True)
    schemas = json.loads((ROOT / "tests/schemas/dask-kubernetes-2026.3.0.json").read_text(encoding="utf-8"))

    def resource(address: str) -> referencing.Resource[Any]:
        """The schemas by their address in the package; those of Kubernetes itself were checked above."""
        return referencing.Resource(schemas if "dask_kubernetes" in address else kubernetes, DRAFT4)

    kubernetes = {"definitions": {f"io.k8s.api.core.v1.{kind}": {} for kind in ("PodSpec", "ServiceSpec")}}
    anything = referencing.Registry(retrieve=resource)  # type: ignore[call-arg]
    schema = {"$ref": f"{DASK}#/definitions/dask.k8s.api.v1.DaskCluster"}
    jsonschema.Draft4Validator(schema, registry=anything).validate(cluster)
    del cluster["spec"]["worker"]["spec"]
    with pytest.raises(jsonschema.ValidationError, match="'spec' is a required property"):
        jsonschema.Draft4Validator(schema, registry=anything).validate(cluster)


@pytest.mark.parametrize(
    ("name", "operation"),
    [("aws_batch_definition.json", "RegisterJobDefinition"), ("aws_batch_job.json", "SubmitJob")],
)
def test_aws_batch(name: str, operation: str) -> None:
    session = pytest.importorskip("botocore.session", reason="botocore is not installed").get_session()
    validate = pytest.importorskip("botocore.validate").validate_parameters
    shape = session.get_service_model("batch").operation_model(operation).input_shape
    parameters = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))
    validate(parameters, shape)
    with pytest.raises(Exception, match="must be one of"):
        validate(parameters | {"jobname": "x"} if "jobName" in parameters else parameters | {"typ": "x"}, shape)


def test_argo_workflow() -> None:
    models = pytest.importorskip("hera.workflows.models", reason="hera is not installed")
    (workflow,) = documents("argo_workflow.yaml")
    read = models.Workflow.model_validate(workflow).model_dump(mode="json", by_alias=True, exclude_none=True)

    def check(mine: Any, known: Any, where: str) -> None:
        """What the model does not know is dropped from it."""
        if isinstance(mine, dict):
            assert mine.keys() <= known.keys(), where
            for key, value in mine.items():
                check(value, known[key], f"{where}.{key}")
        elif isinstance(mine, list):
            for index, value in enumerate(mine):
                check(value, known[index], f"{where}[{index}]")

    check(workflow, read, "workflow")
    names = {template["name"] for template in workflow["spec"]["templates"]}
    steps = [step["template"] for group in workflow["spec"]["templates"][0]["steps"] for step in group]
    assert {workflow["spec"]["entrypoint"], *steps} == names


def kubernetes_retries(code: int) -> bool:
    rules = documents("kubernetes_job.yaml")[0]["spec"]["podFailurePolicy"]["rules"]
    by_code = [rule for rule in rules if code in rule.get("onExitCodes", {}).get("values", [])]
    return not by_code or by_code[0]["action"] in ("Ignore", "Count")


def argo_retries(code: int) -> bool:
    (template,) = [each for each in documents("argo_workflow.yaml")[0]["spec"]["templates"] if "retryStrategy" in each]
    expression, _, otherwise = template["retryStrategy"]["expression"].partition(" || ")
    assert otherwise == 'lastRetry.status == "Error"'
    return code in json.loads(expression.removeprefix("asInt(lastRetry.exitCode) in "))


def batch_retries(code: int) -> bool:
    """Source: https://docs.aws.amazon.com/batch/latest/userguide/job_retries.html: the first rule that fits counts."""
    rules = json.loads((EXAMPLES / "aws_batch_definition.json").read_text())["retryStrategy"]["evaluateOnExit"]
    assert len(rules) <= 5
    actions = [rule["action"] for rule in rules if rule.get("onExitCode") in (str(code), "*")]
    return actions[0] == "RETRY"


@pytest.mark.parametrize(("code", "again"), [(1, True), (2, False), (3, False), (137, True), (143, True)])
@pytest.mark.parametrize("retries", [kubernetes_retries, argo_retries, batch_retries])
def test_only_what_may_pass_is_tried_again(retries: Callable[[int], bool], code: int, again: bool) -> None:
    assert retries(code) is again


def test_all_examples_use_this_version() -> None:
    for path in EXAMPLES.iterdir():
        for line in path.read_text(encoding="utf-8").splitlines():
            if "/geocfl:" in line:
                assert f"/geocfl:{__version__}" in line, path


def test_every_example_is_on_the_page() -> None:
    page = (ROOT / "docs" / "how-to" / "deploy.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        assert path.name in page
