"""launch/gke: the manifests agree with themselves, and their parts with the schemas of Kubernetes."""

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("gpu", "tpu")


def manifest(kind: str) -> dict:
    return yaml.safe_load((ROOT / "launch" / "gke" / f"{kind}.yaml").read_text())


def job_of(kind: str) -> dict:
    (replicated,) = manifest(kind)["spec"]["replicatedJobs"]
    return replicated["template"]


def container_of(kind: str) -> dict:
    (container,) = job_of(kind)["spec"]["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize("kind", KINDS)
def test_its_job_and_pod_are_what_kubernetes_takes(kind):
    package = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    validate = package.validate
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "train"}, **job_of(kind)}
    validate(job, "1.31", strict=True)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "train"},
        "spec": job["spec"]["template"]["spec"],
    }
    validate(pod, "1.31", strict=True)
    # A field that Kubernetes does not know is refused, so the schemas above have looked.
    with pytest.raises(package.ValidationError):
        validate({**pod, "spec": {**pod["spec"], "container": []}}, "1.31", strict=True)


# Fields of jobset.x-k8s.io/v1alpha2 (JobSetSpec, ReplicatedJob, FailurePolicy), of which no schema is packaged.
JOBSET = {
    "spec": {"replicatedJobs", "network", "successPolicy", "failurePolicy", "startupPolicy", "suspend", "coordinator"},
    "replicatedJobs": {"name", "template", "replicas"},
    "failurePolicy": {"maxRestarts", "restartStrategy", "rules"},
    "rules": {"name", "action", "targetReplicatedJobs", "onJobFailureReasons"},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_its_jobset_has_the_fields_of_a_jobset(kind):
    found = manifest(kind)
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    spec, failure = found["spec"], found["spec"]["failurePolicy"]
    assert set(spec) <= JOBSET["spec"] and set(failure) <= JOBSET["failurePolicy"]
    assert all(set(part) <= JOBSET["replicatedJobs"] for part in spec["replicatedJobs"])
    assert all(set(rule) <= JOBSET["rules"] for rule in failure["rules"])
    assert failure["rules"][0]["action"] == "FailJobSet"
    assert failure["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert failure["maxRestarts"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_any_end_but_success_starts_all_pods_again_except_a_mistake(kind):
    job, pod = job_of(kind)["spec"], job_of(kind)["spec"]["template"]["spec"]
    assert job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"  # the JobSet restarts, all together
    assert job["completionMode"] == "Indexed" and job["parallelism"] == job["completions"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2]
    assert rule["onExitCodes"]["containerName"] == container_of(kind)["name"]
    assert pod["terminationGracePeriodSeconds"] >= 60


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_pod_mounts_is_there_and_its_flags_are_known(kind):
    from fundusgan_jax.main import parser

    pod, container = job_of(kind)["spec"]["template"]["spec"], container_of(kind)
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
    flags, settings = parser().parse_with_settings(container["args"])
    assert (ROOT / flags.config).is_file() and settings
    assert "command" not in container  # the image's entry point, below its init process


@pytest.mark.parametrize("kind", KINDS)
def test_what_must_outlive_a_pod_lies_in_the_claim(kind):
    from fundusgan_jax.devices.compilation_cache import FOLDER_VARIABLE

    pod, container = job_of(kind)["spec"]["template"]["spec"], container_of(kind)
    (claimed,) = [volume["name"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    (mounted,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == claimed]
    folders = [
        word.split("=", 1)[1] for word in container["args"] if re.match(r"--(workdir|weights_dir)=", word)
    ]
    folders += [entry["value"] for entry in container["env"] if entry["name"] == FOLDER_VARIABLE]
    assert len(folders) == 3 and all(Path(mounted) in Path(folder).parents for folder in folders)


def test_gpu_pods_find_each_other():
    variables = {entry["name"]: entry for entry in container_of("gpu")["env"]}
    found = manifest("gpu")
    name, replicated = found["metadata"]["name"], found["spec"]["replicatedJobs"][0]["name"]
    # A JobSet names its pods JOBSET-REPLICATEDJOB-JOB-POD and their domain after itself.
    assert variables["JAX_COORDINATOR_ADDRESS"]["value"].startswith(f"{name}-{replicated}-0-0.{name}:")
    assert variables["JAX_NUM_PROCESSES"]["value"] == str(job_of("gpu")["spec"]["parallelism"])
    assert "job-completion-index" in json.dumps(variables["JAX_PROCESS_ID"])


def test_tpu_pods_are_the_hosts_of_their_topology():
    pod = job_of("tpu")["spec"]["template"]["spec"]
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = container_of("tpu")["resources"]["limits"]["google.com/tpu"]
    assert int(rows) * int(columns) == chips * job_of("tpu")["spec"]["parallelism"]


def test_gpu_pods_have_what_the_launch_files_set():
    variables = {entry["name"]: entry.get("value") for entry in container_of("gpu")["env"]}
    script = (ROOT / "launch" / "gpu_env.sh").read_text()
    assert f"${{XLA_CLIENT_MEM_FRACTION:-{variables['XLA_CLIENT_MEM_FRACTION']}}}" in script
    assert f' {variables["XLA_FLAGS"]}"' in script


@pytest.mark.parametrize("kind", KINDS)
def test_pods_train_in_half_precision(kind):
    assert "--config.model.dtype=bfloat16" in container_of(kind)["args"]
