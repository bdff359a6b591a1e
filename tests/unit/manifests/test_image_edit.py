"""Another image in a manifest: one value changes, and not a byte beside it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.followed_images import FollowedImage
from controller.domain.apps.spec import ImageFollow, TagOrder
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.manifests.image_edit import EditedFile, edit_image
from controller.ports import SourceFile
from controller.yaml_documents import parse

NEW = f"demo:1.3.0@sha256:{'a' * 64}"
FOLLOW = ImageFollow(semver="^1", order=TagOrder.ALPHABETICAL, digest=False, interval=300.0, write_back=True)
RULE = '{semver: "^1", writeBack: true}'
HEAD = "apiVersion: unified-platform.cs.hse.ru/v1\n"


def files(*texts: str) -> tuple[SourceFile, ...]:
    return tuple(SourceFile(f"m{number}.yaml", text.encode()) for number, text in enumerate(texts))


def edited(found: Iterable[SourceFile], subject: str, image: str) -> EditedFile | None:
    return edit_image(found, FollowedImage(subject, "demo:1", FOLLOW), image)


def component(name: str, image: str, before: str = "", rule: str = RULE) -> str:
    kind = f"{HEAD}kind: MLComponent\nmetadata: {{name: {name}}}\n"
    follow = f"    follow: {rule}\n" if rule else ""
    return f"{kind}spec:\n  image:\n{follow}{before}    existingImageName: {image}\n"


JSON = (
    '{"apiVersion": "unified-platform.cs.hse.ru/v1", "kind": "MLComponent", "metadata": {"name": "a"}, '
    '"spec": {"image": {"existingImageName": "demo:1", "follow": {"semver": "^1", "writeBack": true}}}}'
)
STYLES = {
    "plain": ("demo:1", NEW),
    "double quotes": ('"demo:1"', f'"{NEW}"'),
    "single quotes": ("'demo:1'", f"'{NEW}'"),
    "a comment behind": ("demo:1   # {the old one}", f"{NEW}   # {{the old one}}"),
    "text that is the name": ("demo:1  # demo:1", f"{NEW}  # demo:1"),
}


@pytest.mark.parametrize(("before", "after"), STYLES.values(), ids=STYLES.keys())
def test_the_value_changes_and_nothing_else(before: str, after: str) -> None:
    text = component("a", before, before="    # The image:  \t\n\n")
    found = edited(files("x: [1", component("b", "demo:1"), text), "a", NEW)
    assert found
    assert (found.path, found.before) == ("m2.yaml", "demo:1")
    assert found.content.decode() == text.replace(before, after, 1)


@pytest.mark.parametrize(
    "whole",
    [
        component("a", "demo:1").replace("\n", "\r\n"),
        "\ufeff" + component("a", "demo:1"),
        "# ünï—cödé \U0001f600\n" + component("a", "demo:1"),
        f"{component('b', 'demo:1')}---\n{component('a', 'demo:1')}...\n",
        f"%YAML 1.2\n---\n{component('a', 'demo:1')}",
        component("a", "demo:1").rstrip("\n"),
        JSON,
    ],
    ids=["CRLF", "BOM", "Unicode", "second document", "directive", "no last newline", "JSON"],
)
def test_files_as_people_write_them(whole: str) -> None:
    found = edited(files(whole), "a", NEW)
    assert found
    place = whole.rindex("demo:1")
    assert found.content.decode() == whole[:place] + NEW + whole[place + len("demo:1") :]


def test_stages_of_pipelines() -> None:
    stages = "".join(
        f"    - name: {name}\n      image: {{existingImageName: demo:1, follow: {RULE}}}\n" for name in "xyz"
    )
    text = f"{HEAD}kind: ExperimentPipeline\nmetadata: {{name: train}}\nspec:\n  stages:\n{stages}"
    found = edited(files(text), "train/y", NEW)
    assert found
    changed = parse("", found.content).documents[0].at(("spec", "stages")).value
    assert [stage["image"]["existingImageName"] for stage in changed] == ["demo:1", NEW, "demo:1"]  # type: ignore[index,call-overload,union-attr]


def test_what_is_there_already() -> None:
    assert edited(files(component("a", NEW)), "a", NEW) is None


REFUSED = {
    "an alias": (
        f"{HEAD}kind: MLComponent\nmetadata: {{name: a, labels: {{x: &i demo:1}}}}\n"
        f"spec: {{image: {{existingImageName: *i, follow: {RULE}}}}}\n"
    ),
    "an anchor": component("a", "&i demo:1"),
    "a block": component("a", "|-\n      demo:1"),
    "an escape": component("a", '"demo:\\x31"'),
    "encrypted by sops": component("a", "demo:1") + "sops: {mac: x}\n",
    "nothing of it": component("b", "demo:1"),
    "a build": f"{HEAD}kind: MLComponent\nmetadata: {{name: a}}\nspec: {{image: {{build: {{}}}}}}\n",
}


CHANGED = {
    "another image": component("a", "other:1"),
    "an image of another registry": component("a", "hub.example.org/demo:1"),
    "no rule": component("a", "demo:1", rule=""),
    "not to be written": component("a", "demo:1", rule='{semver: "^1"}'),
    "another range": component("a", "demo:1", rule='{semver: "~1.2", writeBack: true}'),
    "another kind of rule": component("a", "demo:1", rule="{digest: true, writeBack: true}"),
    "a rule that is none": component("a", "demo:1", rule="[writeBack]"),
}


@pytest.mark.parametrize("text", CHANGED.values(), ids=CHANGED.keys())
def test_what_was_pushed_meanwhile_is_not_undone(text: str) -> None:
    with pytest.raises(
        Stalled, match=r"m0.yaml:\d+:\d+: the branch does not follow demo by this rule any more"
    ):
        edited(files(text), "a", NEW)


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_changed_safely_is_refused(text: str) -> None:
    with pytest.raises(Stalled) as caught:
        edited(files(text), "a", NEW)
    assert caught.value.reason == Reason.IMAGE_WRITE_FAILED


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_around_it_is_kept_or_nothing_is_written(before: str, after: str) -> None:
    text = f"{before}\n---\n{component('a', 'demo:1')}---\n{after}"
    try:
        content = text.encode()
        found = edited((SourceFile("m.yaml", content),), "a", NEW)
    except (Stalled, UnicodeEncodeError):
        return
    assert found
    assert found.content.decode().replace(NEW, "demo:1", 1) == text
