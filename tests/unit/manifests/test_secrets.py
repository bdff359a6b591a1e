"""Secrets of a commit and of the platform folder that cannot be used where they are named: refused
there, without a value.

`data` in Base64 can hold what YAML itself refuses, such as NUL.
"""

from __future__ import annotations

import base64

import pytest

from tests.support.manifests import VERSION, app_problems, platform_problems

NUL, LINES, ESCAPE = "correct-horse\0x", "correct-horse\nbattery", "correct\x1bhorse"


def secret(name: str, **values: str) -> str:
    data = ", ".join(f"{key}: {base64.b64encode(value.encode()).decode()}" for key, value in values.items())
    return f"{VERSION}kind: Secret\nmetadata: {{name: {name}}}\ndata: {{{data}}}\n"


def component(**spec: str) -> str:
    fields = "".join(f", {key}: {value}" for key, value in spec.items())
    service = spec.pop("mlService", "{inference: 'app:predict'}")
    fields = "".join(f", {key}: {value}" for key, value in spec.items())
    return (
        f"{VERSION}kind: MLComponent\nmetadata: {{name: classify}}\n"
        f"spec: {{image: {{existingImageName: demo}}, mlService: {service}{fields}}}\n"
    )


def published(way: str) -> str:
    return (
        f"{VERSION}kind: APIComponent\nmetadata: {{name: api}}\n"
        f"spec: {{published: true, mlComponent: {{name: classify}},"
        f" restfulApi: {{path: image, auth: {{{way}: {{credentials: callers}}}}}}}}\n"
    )


def told(*texts: str) -> str:
    """The one problem of a commit, which shows no value."""
    [problem] = app_problems(*texts)
    assert "horse" not in str(problem)
    return f"{problem.field}: {problem.message}"


# --- environments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONHOME", "UNIP_APP", "PRICHAL_SERVING", "tls.key"]
)
def test_keys_that_are_not_for_a_secret_to_set(key: str) -> None:
    texts = component(envFrom="[{secretRef: {name: own}}]"), secret("own", **{key: "correct-horse"})
    assert told(*texts).startswith(
        "spec.envFrom[0].secretRef.name: the Secret 'own' cannot become environment"
    )
    stage = (
        f"{VERSION}kind: ExperimentPipeline\nmetadata: {{name: train}}\nspec: {{vars: [], stages: [{{name: fit,"
        " image: {existingImageName: demo}, envFrom: [{secretRef: {name: own}}]}]}\n"
    )
    assert told(stage, texts[1]).startswith("spec.stages[0].envFrom[0].secretRef.name: ")


@pytest.mark.parametrize("name", ["PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONEXECUTABLE", "PYTHONINSPECT"])
def test_variables_that_lead_away_from_the_platforms_server(name: str) -> None:
    env = f"[{{name: A, value: x}}, {{name: {name}, value: '1'}}]"
    assert told(component(env=env)).startswith(f"spec.env[1].name: {name} leads Python away")
    assert app_problems(component(env=env, mlService="{server: own}")) == ()


def test_docstrings_stay() -> None:
    for value, problems in (("0", 0), ("1", 0), ("2", 1)):
        assert len(app_problems(component(env=f"[{{name: PYTHONOPTIMIZE, value: '{value}'}}]"))) == problems


@pytest.mark.parametrize(
    "name", ["PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONHASHSEED", "PATH", "LD_LIBRARY_PATH"]
)
def test_variables_that_a_developer_may_set(name: str) -> None:
    assert app_problems(component(env=f"[{{name: {name}, value: '0'}}]")) == ()


# --- callers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [NUL, LINES, ESCAPE])
@pytest.mark.parametrize("way", ["basic", "token"])
def test_callers_who_could_not_call(way: str, value: str) -> None:
    problem = told(component(), published(way), secret("callers", bob="letmein", ann=value))
    assert problem.startswith(
        f"spec.restfulApi.auth.{way}.credentials: the Secret 'callers' is not a list of "
    )
    assert "'ann'" in problem


def test_callers_who_can() -> None:
    for way in ("basic", "token"):
        assert app_problems(component(), published(way), secret("callers", ann="correct-horse")) == ()


# --- the platform folder ----------------------------------------------------------------------------------------

URL = {"https": "https://git.example.org/x.git", "ssh": "ssh://git@git.example.org/x.git"}


def repository(scheme: str = "https", rest: str = "credentials: login") -> str:
    return (
        f"{VERSION}kind: Repository\nmetadata: {{name: demo}}\n"
        f"spec: {{url: '{URL[scheme]}', ref: {{branch: main}}, {rest}}}\n"
    )


LOGINS = {"username": "ann", "password": "letmein"}


@pytest.mark.parametrize("key", ["username", "password", "token"])
@pytest.mark.parametrize("value", [NUL, LINES, ESCAPE])
def test_logins_that_no_header_can_hold(key: str, value: str) -> None:
    values = {"token": value} if key == "token" else {**LOGINS, key: value}
    [problem] = platform_problems(repository(), secret("login", **values))
    assert problem.field == "spec.credentials"
    assert problem.message.startswith(
        f"{key} of the Secret 'login' holds a line break or another control character"
    )
    assert "horse" not in str(problem)


@pytest.mark.parametrize("key", ["sshPrivateKey", "knownHosts"])
def test_keys_may_have_lines_and_no_nul(key: str) -> None:
    keys = {"sshPrivateKey": "-----BEGIN\nx\n-----END\n", "knownHosts": "git.example.org ssh-ed25519 AAAA\n"}
    assert platform_problems(repository("ssh"), secret("login", **keys)) == ()
    [problem] = platform_problems(repository("ssh"), secret("login", **{**keys, key: NUL}))
    assert problem.message == f"{key} of the Secret 'login' holds NUL: is it a binary file?"


@pytest.mark.parametrize("value", [NUL, LINES, ESCAPE])
def test_webhook_secrets(value: str) -> None:
    hook = repository(rest="webhook: {provider: github, secret: hook}")
    assert platform_problems(hook, secret("hook", secret="letmein")) == ()
    [problem] = platform_problems(hook, secret("hook", secret=value))
    assert problem.field == "spec.webhook.secret"
    assert "horse" not in str(problem)


@pytest.mark.parametrize("value", [NUL, LINES, ESCAPE])
@pytest.mark.parametrize("field", ["registries", "packageRegistries"])
def test_logins_of_registries(field: str, value: str) -> None:
    app = (
        f"{VERSION}kind: PlatformApp\nmetadata: {{name: demo}}\n"
        f"spec: {{repository: demo, {field}:"
        " [{name: hub, url: 'https://registry.example.org', credentials: login}]}\n"
    )
    open = repository(rest="interval: 60s")
    assert platform_problems(app, open, secret("login", **LOGINS)) == ()
    [problem] = platform_problems(app, open, secret("login", username="ann", password=value))
    assert problem.field == f"spec.{field}[0].credentials"
    assert "horse" not in str(problem)
