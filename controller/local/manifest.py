"""The pipeline to run, as declared by a manifest file or a folder of manifests. Files in, values out.

The manifests are read and validated by the same code as those of a commit. Called by `run`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.config import DefaultLimits
from controller.domain.apps.spec import (
    ApiSpec,
    ApiVariable,
    ComponentKind,
    PipelineSpec,
    PipelineTarget,
    SecretSpec,
    undeclared_app,
)
from controller.domain.errors import ManifestInvalid, Stalled
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret, without_line_end
from controller.local.selection import choose, namespace_of
from controller.manifests import components
from controller.manifests.build import examine
from controller.manifests.encrypted import folder_access
from controller.manifests.reader import SUFFIXES, ManifestDocument
from controller.manifests.validate import read_folder
from controller.ports import SourceFile
from controller.reconcile.runnable_pipelines import optional_inputs

#: The namespace of manifests that name none.
#: Fields of a pipeline that describe what happens besides a run or after it.
_NOT_FOLLOWED = ("schedule", "webhook", "continueWith")


@dataclass(frozen=True)
class DeclaredPipeline:
    """`passed` maps names of inputs to what the pipeline's API says of them, `optional` names those that may
    be left out, and `remarks` are for the person who runs the pipeline.
    """

    app: AppName
    pipeline: PipelineSpec
    passed: Mapping[str, ApiVariable]
    optional: tuple[str, ...]
    secrets: Mapping[str, SecretSpec]
    remarks: tuple[str, ...] = ()


def declared(manifest: Path, pipeline: str | None, limits: DefaultLimits) -> DeclaredPipeline:
    """Read the manifests. Raises ManifestInvalid, and Stalled `UnknownComponent`. If `manifest` is a file,
    the others in its folder are read for what it refers to (a box, a Secret, its API), but their own problems
    are ignored.
    """
    files = tuple(read_folder(manifest)) if manifest.is_dir() else tuple(_with_neighbours(manifest))
    app = namespace_of(files)
    folder = manifest if manifest.is_dir() else manifest.parent
    found = examine(files, undeclared_app(app), False, limits, folder_access(folder))
    of_file = None if manifest.is_dir() else manifest.name
    problems = tuple(p for p in found.problems if of_file in (None, p.file))
    if problems:
        raise ManifestInvalid(problems)
    documents = found.commit.of(ComponentKind.EXPERIMENT_PIPELINE)
    here = [document for document in documents if of_file in (None, document.file)]
    document = choose(here, pipeline, "pipeline", "--pipeline")
    pipeline_spec = components.pipeline(document, limits)
    apis = tuple(components.api(document) for document in found.commit.of(ComponentKind.API_COMPONENT))
    return DeclaredPipeline(
        app,
        pipeline_spec,
        _passed(apis, pipeline_spec.name),
        optional_inputs(pipeline_spec.name, apis),
        {d.name: components.secret(d, app) for d in found.commit.of(ComponentKind.SECRET) if d.is_decrypted},
        tuple(_remarks(document, pipeline_spec)),
    )


def _with_neighbours(manifest: Path) -> list[SourceFile]:
    """Return the files, this one first: its namespace counts."""
    others = sorted(path for path in manifest.parent.iterdir() if path.suffix in SUFFIXES and path.is_file())
    names = [manifest.name, *(path.name for path in others if path.name != manifest.name)]
    return [SourceFile(name, (manifest.parent / name).read_bytes()) for name in names]


def _passed(apis: tuple[ApiSpec, ...], pipeline: ComponentName) -> dict[str, ApiVariable]:
    ours = (api for api in apis if api.target == PipelineTarget(pipeline))
    return {variable.name: variable for api in ours for variable in api.inputs}


def _remarks(document: ManifestDocument, pipeline: PipelineSpec) -> Iterator[str]:
    for field in _NOT_FOLLOWED:
        if document.get("spec", field) is not None:
            yield f"{field} of the pipeline is ignored here"
    for var in pipeline.vars:
        if var.publish_to:
            yield f"{var.name} is not published to the box {var.publish_to[0]!r}, only copied to the output folder"


def secret_of(name: str, file: Path) -> SecretSpec:
    """Parse lines `KEY=value`, as `docker run --env-file` does: nothing is unquoted, blank lines and those
    that begin with # are skipped. Raises Stalled `SecretInvalid` with the line.
    """
    values = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, sign, value = line.partition("=")
        if not sign or not key.strip():
            raise Stalled(Reason.SECRET_INVALID, f"{file}:{number}: the line is not KEY=value")
        values.append((key.strip(), Secret(value)))
    return SecretSpec(name, tuple(values))


def given_secrets(given: Iterable[tuple[str, Path]]) -> dict[str, SecretSpec]:
    """Return the Secrets that the options `NAME=FILE` and `NAME/KEY=FILE` give; those of one name are one Secret. The
    file of a KEY is its value, as in a Secret of a platform folder. Raises Stalled `SecretInvalid`, OSError.
    """
    values: dict[str, dict[str, Secret]] = {}
    for place, file in given:
        name, slash, key = place.partition("/")
        found = {key: _content(file)} if slash else dict(secret_of(name, file).values)
        values.setdefault(name, {}).update(found)
    return {name: SecretSpec(name, tuple(found.items())) for name, found in values.items()}


def _content(file: Path) -> Secret:
    try:
        return Secret(without_line_end(file.read_text()))
    except UnicodeDecodeError as error:
        raise Stalled(Reason.SECRET_INVALID, f"{file}: the value is not text in UTF-8") from error
