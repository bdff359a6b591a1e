"""Where commit statuses go, and in which form: every forge, from every form of a repository's URL."""

from __future__ import annotations

import pytest

from controller.domain.apps.commit_status import CommitState, CommitStatus
from controller.domain.apps.spec import CommitStatusSpec, StatusProvider
from controller.domain.forges import Forge, NoForge, address_of, judge_status, takes
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.runs.webhooks import DeliveryOutcome, MessageKind, ReceiverResponse
from controller.domain.secret import Secret
from tests.support.forges import RECORDED, SHA, TOKEN
from tests.support.receivers import Received

P = StatusProvider
RUNNING = b'{"message": "Cannot transition status via :run from :running (Reason(s): ...)"}'
SERVER, ORG = StatusProvider.BITBUCKET_SERVER, "https://example.org"
CREDENTIALS = {
    "token": {"token": Secret(TOKEN)},
    "password": {"username": Secret("bot"), "password": Secret(TOKEN)},
}


def spec(provider: StatusProvider, url: str = "") -> CommitStatusSpec:
    return CommitStatusSpec(provider, "demo-status", url)


@pytest.mark.parametrize(
    ("provider", "repository", "url", "api", "path"),
    [
        (P.GITHUB, "https://github.com/team/demo.git", "", "https://api.github.com", "team/demo"),
        (P.GITHUB, "git@github.com:team/demo.git", "", "https://api.github.com", "team/demo"),
        (P.GITHUB, "ssh://git@ssh.github.com:443/team/demo", "", "https://api.github.com", "team/demo"),
        (P.GITLAB, "ssh://git@altssh.gitlab.com:443/team/demo", "", "https://gitlab.com/api/v4", "team/demo"),
        (P.BITBUCKET, "ssh://git@altssh.bitbucket.org:443/team/demo", "", "https://api.bitbucket.org/2.0", "team/demo"),
        (P.GITHUB, "https://octo.ghe.com/team/demo", "", "https://api.octo.ghe.com", "team/demo"),
        (P.GITHUB, "git@octo.ghe.com:team/demo.git", "", "https://api.octo.ghe.com", "team/demo"),
        (P.GITLAB, "https://bot@example.org:8443/team/demo", "", "https://example.org:8443/api/v4", "team/demo"),
        (P.GITHUB, "https://git.example.org/team/demo/", "", "https://git.example.org/api/v3", "team/demo"),
        (P.GITLAB, "https://gitlab.com/team/models/demo.git", "", "https://gitlab.com/api/v4", "team/models/demo"),
        (P.GITLAB, "http://git.example.org:3000/team/demo", "", "http://git.example.org:3000/api/v4", "team/demo"),
        (P.GITEA, "https://example.org/git/team/demo.git", "", "https://example.org/git/api/v1", "team/demo"),
        (P.GITEA, "ssh://git@example.org:2222/team/demo.git", "", "https://example.org/api/v1", "team/demo"),
        (P.GITEA, "git@example.org:team/demo", "http://10.0.0.5:3000/v1/", "http://10.0.0.5:3000/v1", "team/demo"),
        (P.FORGEJO, "https://codeberg.org/team/demo.git", "", "https://codeberg.org/api/v1", "team/demo"),
        (P.BITBUCKET, "git@bitbucket.org:team/demo.git", "", "https://api.bitbucket.org/2.0", "team/demo"),
        (SERVER, f"{ORG}/scm/TEAM/demo.git", "", f"{ORG}/rest/api/latest", "TEAM/demo"),
        (SERVER, f"{ORG}/bb/scm/~ada/demo.git", "", f"{ORG}/bb/rest/api/latest", "~ada/demo"),
        (SERVER, "ssh://git@example.org:7999/team/demo.git", "", f"{ORG}/rest/api/latest", "team/demo"),
    ],
)  # fmt: skip
def test_where_they_go(provider: StatusProvider, repository: str, url: str, api: str, path: str) -> None:
    found = address_of(spec(provider, url), repository)
    assert (found.api, f"{found.owner}/{found.name}") == (api, path)


@pytest.mark.parametrize(
    ("provider", "repository", "why"),
    [
        (P.GITEA, "/srv/git/demo.git", "repository on this host"),
        (P.GITEA, "file:///srv/git/demo.git", "repository on this host"),
        (P.GITHUB, "https://github.com/demo.git", "an owner and a name"),
        (P.GITLAB, "git@gitlab.com:demo.git", "an owner and a name"),
        (
            P.BITBUCKET,
            "https://git.example.org/team/demo.git",
            "not at bitbucket.org: name the API under 'url'",
        ),
    ],
)
def test_what_has_no_forge(provider: StatusProvider, repository: str, why: str) -> None:
    with pytest.raises(NoForge, match=why):
        address_of(spec(provider), repository)


def forge_at(provider: StatusProvider, login: str = "token", app: str = "demo") -> Forge:
    root = "https://git.example.org"
    url = f"{root}/2.0" if provider is P.BITBUCKET else ""
    address = address_of(spec(provider, url), f"{root}/{RECORDED[provider].repository}")
    return Forge(
        AppName(app),
        provider,
        address,
        f"prichal/{app}",
        f"https://ml.example.org/-/apps/{app}",
        CREDENTIALS[login],
    )


def received(forge: Forge, state: CommitState, description: str = "ready") -> Received:
    message = forge.message(CommitStatus(SHA, state, Reason.READY, description), 5.0)
    request = forge.request(message)
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Received(request.url.removeprefix("https://git.example.org"), headers, request.body)


@pytest.mark.parametrize("state", CommitState)
@pytest.mark.parametrize("provider", StatusProvider)
def test_every_forge_takes_every_state(provider: StatusProvider, state: CommitState) -> None:
    there = RECORDED[provider]
    for keys in takes(provider):
        login = "token" if "token" in keys else "password"
        sent = received(forge_at(provider, login), state, "д" * 140)
        assert there.answer(sent)[0] == there.accepted
        assert "https://ml.example.org/-/apps/demo" in sent.json.values()
        assert "prichal/demo" in sent.json.values()
    assert len({received(forge_at(provider), each).json["state"] for each in CommitState}) >= 3


@pytest.mark.parametrize("provider", [P.BITBUCKET, P.BITBUCKET_SERVER])
def test_the_key_of_a_long_name_is_short_and_its_own(provider: StatusProvider) -> None:
    names = ["a" * 62, f"{'a' * 61}b"]
    sent = [received(forge_at(provider, app=name), CommitState.SUCCESS).json for name in names]
    assert len({one["key"] for one in sent}) == 2
    assert all(len(one["key"]) == 40 for one in sent)
    assert [one["name"] for one in sent] == [f"prichal/{name}" for name in names]


def test_a_message_in_the_outbox_has_no_credential() -> None:
    forge = forge_at(P.GITHUB)
    message = forge.message(CommitStatus(SHA, CommitState.SUCCESS, Reason.READY, "ready"), 5.0)
    assert message.kind is MessageKind.COMMIT_STATUS
    assert message.title == "commit status of 6dcb09b5b578"
    assert TOKEN not in repr((message, forge, forge.request(message)))
    again = forge.message(CommitStatus(SHA, CommitState.SUCCESS, Reason.READY, "ready"), 6.0)
    assert again.id != message.id, "what is being sent is not mistaken for what came in its place"


@pytest.mark.parametrize(
    ("answer", "outcome", "wait"),
    [
        (ReceiverResponse(201), DeliveryOutcome.DELIVERED, 0.0),
        (ReceiverResponse(204), DeliveryOutcome.DELIVERED, 0.0),
        (ReceiverResponse(302), DeliveryOutcome.FAILED, 0.0),
        (ReceiverResponse(400), DeliveryOutcome.REFUSED, 0.0),
        (ReceiverResponse(400, body=RUNNING), DeliveryOutcome.DELIVERED, 0.0),
        (ReceiverResponse(400, body=b"Cannot transition status via :run"), DeliveryOutcome.REFUSED, 0.0),
        (ReceiverResponse(401), DeliveryOutcome.FAILED, 0.0),
        (ReceiverResponse(403, "60"), DeliveryOutcome.FAILED, 60.0),
        (ReceiverResponse(404), DeliveryOutcome.FAILED, 0.0),
        (ReceiverResponse(410), DeliveryOutcome.REFUSED, 0.0),
        (ReceiverResponse(422), DeliveryOutcome.REFUSED, 0.0),
        (ReceiverResponse(429, "7"), DeliveryOutcome.FAILED, 7.0),
        (ReceiverResponse(500), DeliveryOutcome.FAILED, 0.0),
    ],
)
def test_what_an_answer_means(answer: ReceiverResponse, outcome: DeliveryOutcome, wait: float) -> None:
    verdict = judge_status(answer, 0.0)
    assert (verdict.outcome, verdict.wait) == (outcome, wait)
