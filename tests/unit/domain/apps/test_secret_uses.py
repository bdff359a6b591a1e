"""Which Secrets manifests name: from all places that can name one, the unset ones first, and never too many."""

from __future__ import annotations

from dataclasses import replace

from controller.domain.apps.secret_uses import MOST_USERS, MOST_USES, SecretUse, secret_uses
from controller.domain.apps.spec import AppSpec
from controller.domain.names import AppName, ComponentName
from tests.support.manifests import VERSION, app_of

TEXT = f"""{VERSION}kind: MLComponent
metadata: {{name: reader}}
spec:
  image: {{existingImageName: demo:1}}
  mlService: {{inference: app:predict}}
  envFrom: [{{secretRef: {{name: keys}}}}, {{secretRef: {{name: in-git}}}}]
---
{VERSION}kind: APIComponent
metadata: {{name: reader-api}}
spec:
  published: true
  mlComponent: {{name: reader}}
  restfulApi: {{path: api, auth: {{basic: {{credentials: users}}, token: {{credentials: keys}}}}}}
---
{VERSION}kind: ExperimentPipeline
metadata: {{name: train}}
spec:
  webhook: {{secret: hook}}
  stages:
    - name: fit
      image: {{existingImageName: demo:1}}
      envFrom: [{{secretRef: {{name: keys}}}}]
---
{VERSION}kind: Secret
metadata: {{name: in-git}}
stringData: {{A: b}}
"""


def test_all_places_that_name_a_secret() -> None:
    assert secret_uses(app_of(TEXT.encode()), {"in-git"}) == (
        SecretUse("hook", ("ExperimentPipeline train",), declared=False),
        SecretUse(
            "keys",
            ("MLComponent reader", "ExperimentPipeline train", "APIComponent reader-api"),
            declared=False,
        ),
        SecretUse("users", ("APIComponent reader-api",), declared=False),
        SecretUse("in-git", ("MLComponent reader",), declared=True),
    )


def test_their_number_is_bounded() -> None:
    reader = app_of(TEXT.encode()).ml_components[0]
    names = tuple(f"s{number}" for number in range(MOST_USES + 5))
    readers = tuple(
        replace(reader, name=ComponentName(f"reader-{number}"), env_from=names)
        for number in range(MOST_USERS + 2)
    )
    found = secret_uses(AppSpec(AppName("demo"), ml_components=readers), ())
    assert len(found) == MOST_USES
    assert {len(use.users) for use in found} == {MOST_USERS}
