"""`openid_issuer.py FOLDER BACK AFTERWARDS`: an issuer of OpenID Connect (Django OAuth Toolkit) on loopback, with ann,
whose password is PASSWORD. BACK and AFTERWARDS are the addresses of the client, to which people come back. It prints
its port. Each line of its input, such as `ann lab ops`, sets the groups of a person, and is repeated when that is done.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.urls import include, path

PASSWORD = "a password at the issuer"
CLIENT, SECRET = "prichal", "s3cret-of-the-client"
FORM = """<form method="post">{% csrf_token %}<input id="name" name="username">
<input id="password" name="password" type="password"><button>Sign in</button></form>"""


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def main(folder: Path, back: str, afterwards: str) -> None:
    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # on loopback
    configure(folder)
    django.setup()
    call_command("migrate", verbosity=0)
    fill(back, afterwards)
    urlpatterns.append(path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")))
    urlpatterns.append(path("login", login))
    server = make_server("127.0.0.1", 0, get_wsgi_application(), Server, QuietHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    for line in sys.stdin:
        set_groups(*line.split())
        print(line.strip(), flush=True)


def configure(folder: Path) -> None:
    (folder / "login.html").write_text(FORM)
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    apps = ("contenttypes", "auth", "sessions", "messages")
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        SECRET_KEY=os.urandom(16).hex(),
        ROOT_URLCONF=__name__,
        LOGIN_URL="/login",
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        INSTALLED_APPS=[*(f"django.contrib.{app}" for app in apps), "oauth2_provider"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "issuer.db")},
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "DIRS": [str(folder)],
                "APP_DIRS": True,
                "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
            }
        ],
        OAUTH2_PROVIDER={
            "OIDC_ENABLED": True,
            "OIDC_RSA_PRIVATE_KEY": key.decode(),
            "OIDC_RP_INITIATED_LOGOUT_ENABLED": True,
            "OIDC_RP_INITIATED_LOGOUT_ALWAYS_PROMPT": False,
            "PKCE_REQUIRED": True,
            "SCOPES": {"openid": "sign in", "profile": "name", "email": "address"},
            "OAUTH2_VALIDATOR_CLASS": f"{__name__}.validator",
        },
    )


def validator() -> object:
    from oauth2_provider.oauth2_validators import OAuth2Validator

    class Validator(OAuth2Validator):  # type: ignore[misc]
        oidc_claim_scope = None

        def get_additional_claims(self, request: Any) -> dict[str, object]:
            user = request.user
            groups = sorted(user.groups.values_list("name", flat=True))
            return {"preferred_username": user.username, "groups": groups}

    return Validator()


def fill(back: str, afterwards: str) -> None:
    from django.contrib.auth.models import User
    from oauth2_provider.models import Application

    User.objects.create_user("ann", password=PASSWORD)
    Application.objects.create(
        client_id=CLIENT,
        client_secret=SECRET,
        client_type="confidential",
        authorization_grant_type="authorization-code",
        redirect_uris=back,
        post_logout_redirect_uris=afterwards,
        algorithm="RS256",
        skip_authorization=True,
    )


def set_groups(name: str, *groups: str) -> None:
    from django.contrib.auth.models import Group, User

    User.objects.get(username=name).groups.set(Group.objects.get_or_create(name=each)[0] for each in groups)


def login(request: object) -> object:
    from django.contrib.auth.views import LoginView

    return LoginView.as_view(template_name="login.html")(request)


urlpatterns: list[object] = []  # Django can import its applications once it is set up

if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
