"""Requests to S3 for which the SDK has no public method: listings of one page, and the steps of an upload in parts.
Signed by the SDK's signer, answered with its exceptions. Used by `client`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import SplitResult, quote, urlencode, urlsplit
from xml.etree.ElementTree import ParseError

from minio.credentials.credentials import Credentials
from minio.error import InvalidResponseError, S3Error
from minio.signer import sign_v4_s3
from urllib3 import BaseHTTPResponse, PoolManager

from controller.domain.secret import Secret

_OK = (200, 204)
_UNSIGNED = "UNSIGNED-PAYLOAD"


class SignedRequests:
    def __init__(self, http: PoolManager, url: str, access_key: str, secret_key: Secret, region: str) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._credentials = Credentials(access_key, secret_key.reveal())
        self._region = region

    def send(
        self,
        method: str,
        bucket: str = "",
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> BaseHTTPResponse:
        """Return the response, which has been read. Raises S3Error and InvalidResponseError, as the SDK does."""
        path = quote("/".join(filter(None, (bucket, key))), safe="/-_.~")
        encoded = urlencode(sorted((query or {}).items()), quote_via=quote, safe="-_.~")
        url = urlsplit(f"{self._url}/{path}" + (f"?{encoded}" if encoded else ""))
        response = self._http.urlopen(
            method,
            url.geturl(),
            body=body or None,
            headers=self._signed(method, url, headers or {}, body),
            redirect=False,
        )
        if response.status not in _OK:
            raise _failure(response)
        return response

    def head(
        self, method: str, bucket: str, key: str, headers: Mapping[str, str]
    ) -> tuple[str, Mapping[str, str]]:
        """Return the URL and all headers of a request whose body is not part of the signature. Servers refuse metadata
        that are not signed, as those of a link are not."""
        url = urlsplit(f"{self._url}/{quote(f'{bucket}/{key}', safe='/-_.~')}")
        return url.geturl(), self._signed_for(method, url, headers, _UNSIGNED)

    def _signed(
        self, method: str, url: SplitResult, headers: Mapping[str, str], body: bytes
    ) -> dict[str, str]:
        return self._signed_for(method, url, headers, hashlib.sha256(body).hexdigest())

    def _signed_for(
        self, method: str, url: SplitResult, headers: Mapping[str, str], digest: str
    ) -> dict[str, str]:
        now = datetime.now(UTC)
        dated = {"x-amz-content-sha256": digest, "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ")}
        given: dict[str, str | list[str] | tuple[str]] = {**headers, "Host": url.netloc, **dated}
        signed = sign_v4_s3(
            method=method,
            url=url,
            region=self._region,
            headers=given,
            credentials=self._credentials,
            content_sha256=digest,
            date=now,
        )
        return {name: str(value) for name, value in signed.items()}


def _failure(response: BaseHTTPResponse) -> S3Error | InvalidResponseError:
    try:
        return S3Error.fromxml(response)
    except (ParseError, ValueError):
        return InvalidResponseError(response.status, response.headers.get("Content-Type"), "")
