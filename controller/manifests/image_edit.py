"""Writes another image into a manifest: the one scalar changes, and everything else of the file stays as it is,
comments and spaces included. Pure; called when followed images are written to Git.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from controller.domain.apps.followed_images import FollowedImage
from controller.domain.apps.spec import ComponentKind
from controller.domain.errors import Stalled
from controller.domain.image_names import split_reference
from controller.domain.reasons import Reason
from controller.manifests.reader import API_VERSION, may_be_ours
from controller.ports import SourceFile
from controller.sops.metadata import KEY as SOPS
from controller.yaml_documents import Json, Node, Path, parse

_FIELD = "existingImageName"


@dataclass(frozen=True)
class EditedFile:
    """`path` is that of the file in the repository, `before` the image that was there."""

    path: str
    content: bytes
    before: str


def edit_image(files: Iterable[SourceFile], followed: FollowedImage, image: str) -> EditedFile | None:
    """Return the file with `image` in the place of what is followed; None if it says so already. Raises Stalled
    `ImageWriteFailed` if there is no such manifest, if it follows something else by now, or if its text cannot be
    changed safely."""
    subject = followed.subject
    for file in files:
        if file.passed_over or not may_be_ours(file.content):
            continue
        documents = parse(file.path, file.content).documents
        for number, document in enumerate(documents):
            if path := _place(document, subject):
                return _edited(file, documents, (number, *path), followed, image)
    raise _refused(f"no manifest on the branch has an image for {subject}")


def _place(document: Node, subject: str) -> tuple[str | int, ...]:
    """Return the path of the image in a document; empty if it is another one's."""
    name, _, stage = subject.partition("/")
    kind = ComponentKind.EXPERIMENT_PIPELINE if stage else ComponentKind.ML_COMPONENT
    if _values(document, ("apiVersion",), ("kind",), ("metadata", "name")) != [API_VERSION, kind.value, name]:
        return ()
    if not stage:
        paths: Iterator[tuple[str | int, ...]] = iter([("spec", "image", _FIELD)])
    else:
        stages = document.at(("spec", "stages")).children
        found = (i for i, each in stages.items() if each.children.get("name", document).value == stage)
        paths = (("spec", "stages", i, "image", _FIELD) for i in found)
    return next((path for path in paths if _has(document, path)), ())


def _values(document: Node, *paths: Path) -> list[Json]:
    return [document.at(path).value if _has(document, path) else None for path in paths]


def _has(node: Node, path: Path) -> bool:
    for step in path:
        child = node.children.get(step)
        if child is None:
            return False
        node = child
    return True


def _edited(
    file: SourceFile,
    documents: tuple[Node, ...],
    place: tuple[str | int, ...],
    followed: FollowedImage,
    image: str,
) -> EditedFile | None:
    number, *path = place
    node = documents[int(number)].at(path)
    before = str(node.value)
    if before == image:
        return None
    where = f"{file.path}:{node.line}:{node.column}"
    if not _is_followed(documents[int(number)].at(path[:-1]), followed):
        raise _refused(f"{where}: the branch does not follow {followed.name} by this rule any more")
    if any(SOPS in document.children for document in documents):
        raise _refused(
            f"{file.path} is encrypted with sops, whose digest covers the image: change it by hand"
        )
    text = file.content.decode("utf-8")
    start = _offset(text, node.line, node.column)
    for quote in ("", '"', "'"):
        if text.startswith(f"{quote}{before}{quote}", start):
            end = start + len(before) + 2 * len(quote)
            changed = f"{text[:start]}{quote}{image}{quote}{text[end:]}".encode()
            if _differs_there_alone(file.path, documents, changed, place, image):
                return EditedFile(file.path, changed, before)
    raise _refused(f"{where}: the image is not written as plain text on one line: write it out there")


def _is_followed(image: Node, followed: FollowedImage) -> bool:
    """Return True if an `image` still says what was followed. A push may have changed it since the pass that declared
    this, and the one who pushed another image or rule does not want the one that was found for the old."""
    rule = image.children.get("follow", image).value
    if not isinstance(rule, dict) or rule.get("writeBack") is not True:
        return False
    found = (rule.get("semver", ""), rule.get("pattern", ""), rule.get("digest", False))
    follow = followed.follow
    name = split_reference(str(image.children[_FIELD].value))[0]
    return name == followed.name and found == (follow.semver, follow.pattern, follow.digest)


def _offset(text: str, line: int, column: int) -> int:
    """Return the index of a place in a text; its end if it is beyond."""
    skipped = sum(len(each) for each in text.splitlines(keepends=True)[: line - 1])
    bom = 1 if line == 1 and text.startswith("\ufeff") else 0
    return min(len(text), skipped + bom + column - 1)


def _differs_there_alone(
    name: str, documents: tuple[Node, ...], changed: bytes, place: tuple[str | int, ...], image: str
) -> bool:
    """Return True if the file still says what it said, but for the image."""
    after = parse(name, changed)
    if after.problems or len(after.documents) != len(documents):
        return False
    wanted = [document.value for document in documents]
    return _with(wanted, place, image) == [document.value for document in after.documents]


def _with(value: Json, path: Path, image: str) -> Json:
    """Return a value with another one at a path."""
    if not path:
        return image
    step, rest = path[0], path[1:]
    if isinstance(value, list):
        return [_with(each, rest, image) if i == step else each for i, each in enumerate(value)]
    if isinstance(value, dict):
        return {key: _with(each, rest, image) if key == step else each for key, each in value.items()}
    return value


def _refused(message: str) -> Stalled:
    return Stalled(Reason.IMAGE_WRITE_FAILED, message)
