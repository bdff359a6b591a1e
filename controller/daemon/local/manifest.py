"""The pipeline that is to be run, as a manifest file or a folder of them declares it. Files in, values out.

Read and judged by the same code as a commit's. Called by `life`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.config import DefaultLimits
from controller.domain.errors import ManifestInvalid, Stalled
from controller.domain.names import AppName, ComponentName, RepositoryName
from controller.domain.secret import Secret
from controller.domain.spec import (
    ApiSpec,
    ApiVariable,
    Kind,
    PipelineSpec,
    PipelineTarget,
    PlatformAppSpec,
    SecretSpec,
)
from controller.manifests import components
from controller.manifests.build import examine
from controller.manifests.reader import SUFFIXES, Document, read
from controller.manifests.validate import read_folder
from controller.ports import SourceFile
from controller.reconcile.resolve import optional_inputs

#: For manifests that do not say whose they are.
APP = AppName("local")
#: Fields of a pipeline that say what happens beside a run, or after it.
_NOT_FOLLOWED = ("schedule", "webhook", "continueWith")


@dataclass(frozen=True)
class Declared:
    """`passed` is what the pipeline's API says of its inputs, by name, and `optional` which of them may be left out;
    `remarks` are for the person who runs it."""

    app: AppName
    pipeline: PipelineSpec
    passed: Mapping[str, ApiVariable]
    optional: tuple[str, ...]
    secrets: Mapping[str, SecretSpec]
    remarks: tuple[str, ...] = ()


def declared(manifest: Path, pipeline: str | None, limits: DefaultLimits) -> Declared:
    """ManifestInvalid; Stalled `UnknownComponent`. Of a file, the others in its folder are read for what it refers to
    (a box, a Secret, its API), and their own problems are not its."""
    files = tuple(read_folder(manifest)) if manifest.is_dir() else tuple(_with_neighbours(manifest))
    app = _namespace(files)
    found = examine(files, PlatformAppSpec(app, RepositoryName("")), None, limits)
    of_file = None if manifest.is_dir() else manifest.name
    problems = tuple(p for p in found.problems if of_file in (None, p.file))
    if problems:
        raise ManifestInvalid(problems)
    documents = found.commit.of(Kind.EXPERIMENT_PIPELINE)
    document = _chosen([d for d in documents if of_file in (None, d.file)], pipeline)
    pipeline_spec = components.pipeline(document, limits)
    apis = tuple(components.api(document) for document in found.commit.of(Kind.API_COMPONENT))
    return Declared(
        app,
        pipeline_spec,
        _passed(apis, pipeline_spec.name),
        optional_inputs(pipeline_spec.name, apis),
        {d.name: components.secret(d, app) for d in found.commit.of(Kind.SECRET)},
        tuple(_remarks(document, pipeline_spec)),
    )


def _with_neighbours(manifest: Path) -> list[SourceFile]:
    """The file first: its namespace counts."""
    others = sorted(path for path in manifest.parent.iterdir() if path.suffix in SUFFIXES and path.is_file())
    names = [manifest.name, *(path.name for path in others if path.name != manifest.name)]
    return [SourceFile(name, (manifest.parent / name).read_bytes()) for name in names]


def _namespace(files: tuple[SourceFile, ...]) -> AppName:
    named = (document.get("metadata", "namespace") for document in read(files).documents)
    return AppName(next((name for name in named if isinstance(name, str)), APP))


def _chosen(documents: list[Document], name: str | None) -> Document:
    names = ", ".join(document.name for document in documents)
    if name is None and len(documents) == 1:
        return documents[0]
    if name is None:
        what = f"several pipelines ({names}): choose one with --pipeline" if documents else "no pipeline"
        raise Stalled("UnknownComponent", f"the manifest has {what}")
    found = next((document for document in documents if document.name == name), None)
    if found is None:
        raise Stalled("UnknownComponent", f"the manifest has no pipeline {name!r}, only: {names or 'none'}")
    return found


def _passed(apis: tuple[ApiSpec, ...], pipeline: ComponentName) -> dict[str, ApiVariable]:
    ours = (api for api in apis if api.target == PipelineTarget(pipeline))
    return {variable.name: variable for api in ours for variable in api.inputs}


def _remarks(document: Document, pipeline: PipelineSpec) -> Iterator[str]:
    for field in _NOT_FOLLOWED:
        if document.get("spec", field) is not None:
            yield f"{field} of the pipeline is not followed here"
    for var in pipeline.vars:
        if var.publish_to:
            yield f"{var.name} is not published to the box {var.publish_to[0]!r}, only taken along"


def secret_of(name: str, file: Path) -> SecretSpec:
    """From lines `KEY=value`, as `docker run --env-file` takes them: nothing is unquoted, blank lines and those that
    begin with # are passed over. Stalled `SecretInvalid` with the line."""
    values = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, sign, value = line.partition("=")
        if not sign or not key.strip():
            raise Stalled("SecretInvalid", f"{file}:{number}: a line has to be KEY=value")
        values.append((key.strip(), Secret(value)))
    return SecretSpec(name, tuple(values))
