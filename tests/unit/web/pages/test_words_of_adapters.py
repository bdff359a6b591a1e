"""What adapters say of Git, engines, registries and storages is in the reader's language; the words of other
programs are quoted as they are."""

from __future__ import annotations

from collections import deque
from http.client import HTTPMessage
from urllib.parse import urlsplit

import docker.errors
import pygit2
import pytest
import requests

from controller.adapters.docker import error_rules as engine
from controller.adapters.docker.build_errors import build_failed
from controller.adapters.git import faults as git
from controller.adapters.git.refs import Advertised, choose
from controller.adapters.objects import error_rules as objects
from controller.adapters.registries import _Answer, _refusal
from controller.domain.apps.spec import GitRef, RefKind
from controller.domain.errors import ControllerError, Stalled
from controller.domain.localizable import Localizable
from controller.domain.secret import Secret
from controller.web.pages.languages import Language, wording

DOING = Localizable("cannot start {name}", name="namer")
REPOSITORY = Localizable("repository {name} ({url})", name="colors", url="https://git.example.org/colors.git")


def of_engine(status: int, words: str, *secrets: Secret) -> ControllerError:
    response = requests.Response()
    response.status_code = status
    error = docker.errors.APIError("message", response=response, explanation=words)
    return engine.translate(error, DOING, secrets)


def of_refs() -> ControllerError:
    refs = Advertised({f"refs/heads/b{number:02}": "1" * 40 for number in range(14)}, "refs/heads/b00")
    with pytest.raises(Stalled) as caught:
        choose(GitRef(RefKind.BRANCH, "main"), refs)
    return caught.value


def of_registry(status: int) -> ControllerError:
    answer = _Answer(urlsplit("https://registry.example.org/v2/"), status, HTTPMessage(), b"")
    return _refusal(answer, known=True)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            of_engine(500, "failed to mount: no space left on device"),
            (
                "не удаётся запустить namer: failed to mount: no space left on device. "
                "Освободите место на диске с /var/lib/docker"
            ),
        ),
        (
            of_engine(500, "the token is swordfish-12345", Secret("swordfish-12345")),
            "не удаётся запустить namer: the token is ***",
        ),
        (
            engine.translate(PermissionError(), DOING),
            (
                "не удаётся запустить namer: нет прав доступа. "
                "Пользователю демона нельзя обращаться к сокету Docker: добавьте его в группу `docker`"
            ),
        ),
        (
            build_failed(
                f"no such stage\n{'x' * 100_000}",
                deque([Localizable("line {line} of the Dockerfile: {what}", line=3, what="FROM")]),
                DOING,
            ),
            None,
        ),
        (
            git.translate(pygit2.GitError("unexpected http status code: 404"), REPOSITORY),
            (
                "репозиторий colors (https://git.example.org/colors.git): unexpected http status code: 404. "
                "Проверьте spec.url; без учётных данных закрытый репозиторий может выглядеть отсутствующим."
            ),
        ),
        (
            of_refs(),
            (
                "в репозитории нет ветки 'main'; есть b00, b01, b02, b03, b04, b05, b06, b07, b08, b09, b10, "
                "b11 и ещё 2 (ветка по умолчанию — 'b00')"
            ),
        ),
        (
            objects.from_body(
                403,
                b"<Error><Code>AccessDenied</Code><Message>Denied.</Message></Error>",
                Localizable("cannot read {bucket}/{key}", bucket="b", key="k"),
            ),
            "не удаётся прочитать b/k: Denied (AccessDenied). Проверьте учётные данные для сервера файлов и их права",
        ),
        (
            of_registry(401),
            "он отклоняет учётные данные (401): проверьте `registries` у PlatformApp и его секрет",
        ),
    ],
)
def test_in_russian(error: ControllerError, told: str | None) -> None:
    said = wording(Language.RUSSIAN).message(error.message)
    if told is None:
        assert said.startswith("не удаётся запустить namer: no such stage"), said[:100]
        assert said.endswith("строка 3 в Dockerfile: FROM")
    else:
        assert said == told
    assert wording(Language.ENGLISH).message(error.message) == error.message
