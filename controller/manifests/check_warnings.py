"""Warnings about what is allowed and yet deserves a word: probably a mistake, or without effect on this platform."""

from __future__ import annotations

from collections.abc import Iterator

from controller.domain.apps.environment import without_effect
from controller.domain.apps.spec import ComponentKind
from controller.domain.localizable import Localizable
from controller.manifests.commit import CheckedCommit, containers
from controller.manifests.components import names, spec_of
from controller.manifests.encrypted import plain_parts
from controller.manifests.pipeline_checks import begun_here, open_variables, outputs_without_box
from controller.manifests.reader import ManifestDocument


def warnings(commit: CheckedCommit) -> Iterator[str]:
    for document in commit.documents:
        if document.kind is ComponentKind.SECRET and (parts := plain_parts(document)):
            which = f" ({', '.join(parts[:10])})" if document.encrypted or document.contents else ""
            yield document.warning(
                ["kind"],
                f"the Secret {document.name!r} lies in plain text in the module's repository{which}, for all who can"
                f" read it: set it with `prichal secret set {commit.app.name} {document.name} KEY`, or encrypt it with"
                f" sops (prichal secret key {commit.app.name})",
            )
        auth = document.get("spec", "restfulApi", "auth")
        if (
            isinstance(auth, dict)
            and auth.get("identityPassThrough")
            and not auth.keys() & {"basic", "token", "oidc"}
        ):
            path = ("spec", "restfulApi", "auth", "identityPassThrough")
            yield document.warning(path, "has nobody to tell about: 'auth' names no way to log in")
        yield from _gpu_warnings(document)
    begun = begun_here(commit)
    for document in commit.of(ComponentKind.EXPERIMENT_PIPELINE):
        yield from _pipeline_warnings(document)
        if not spec_of(document).get("connectedBoxes") and document.name not in begun:
            for place, message in outputs_without_box(document):
                yield document.warning(place, message)
        yield from _continuation_warnings(commit, document)
    for document in commit.of(ComponentKind.API_COMPONENT):
        if "files" in spec_of(document) and not commit.declared[ComponentKind.DATA_BOX]:
            yield document.warning(("spec", "files"), "there are no files to reach: the app has no DataBox")


def _gpu_warnings(document: ManifestDocument) -> Iterator[str]:
    for prefix, raw in containers(document):
        gpus = int(raw["resources"]["gpus"])
        for number, variable in enumerate(raw.get("env", [])):
            if why := without_effect(variable["name"], variable["value"], gpus):
                yield document.warning((*prefix, "env", number, "value"), why)
        if raw["resources"].get("gpuShare", 0) > 1 and not gpus:
            yield document.warning((*prefix, "resources", "gpuShare"), "has no effect without `gpus`")


def _continuation_warnings(commit: CheckedCommit, document: ManifestDocument) -> Iterator[str]:
    path = ("spec", "continueWith", "pipeline")
    after = next(
        (d for d in commit.of(ComponentKind.EXPERIMENT_PIPELINE) if d.name == document.get(*path)), None
    )
    if after is None:
        return
    passed, outputs = open_variables(spec_of(document))
    missing = open_variables(spec_of(after))[0] - passed - outputs - _optional_inputs(commit, after.name)
    if missing:
        listed = ", ".join(sorted(missing))
        message = Localizable(
            "the pipeline {after!r} is passed no {listed} by this one, so that each run of it would fail",
            after=after.name,
            listed=listed,
        )
        yield document.warning(path, message)


def _optional_inputs(commit: CheckedCommit, pipeline: str) -> frozenset[str]:
    """Return the inputs that callers may omit, by the API's spec."""
    return frozenset(
        raw["name"]
        for document in commit.of(ComponentKind.API_COMPONENT)
        if document.get("spec", "experimentPipeline", "name") == pipeline
        for raw in spec_of(document)["apiSpec"].get("inputs", [])
        if not raw["required"]
    )


def _pipeline_warnings(document: ManifestDocument) -> Iterator[str]:
    spec = spec_of(document)
    used = {
        name for stage in spec["stages"] for f in ("inputs", "outputs") for name in names(stage.get(f, []))
    }
    for i, var in enumerate(spec.get("vars", [])):
        if var["name"] not in used:
            yield document.warning(("spec", "vars", i, "name"), f"no stage uses {var['name']!r}")
    if "schedule" in spec and (unfilled := open_variables(spec)[0]):
        listed = ", ".join(sorted(unfilled))
        message = Localizable(
            "a run started by the clock is passed no inputs: give {listed} a mountFrom", listed=listed
        )
        yield document.warning(("spec", "schedule"), message)
