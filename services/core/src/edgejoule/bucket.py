"""A bucket of an S3 server: plain requests, tried again while a fault may pass, and refusals in one sentence.

The client is boto3's, of the extra ``edgejoule[stack]``. Nothing here knows what the objects mean.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from edgejoule.errors import StoreError

PATIENCE_S = 60.0
"""For how long a request is tried again after its first fault: a server may be restarted beneath a running step."""

PART_BYTES = 16 * 2**20
"""Larger files are uploaded in parts of this size."""

_MOST_PARTS = 10_000  # S3's limit
_PARTS_AT_ONCE = 4
_CHUNK_BYTES = 2**20
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0

# What S3 calls its refusals, and what a person can do about them.
_WHAT_TO_DO = {
    "InvalidAccessKeyId": "does not know the access key: check EDGEJOULE_S3_ACCESS_KEY",
    "SignatureDoesNotMatch": "does not accept the secret key: check EDGEJOULE_S3_SECRET_KEY",
    "NoSuchBucket": "has no bucket {bucket!r}: create it, or check EDGEJOULE_STORE",
    "InvalidBucketName": "has no bucket {bucket!r}, nor can it: check EDGEJOULE_STORE",
    "AccessDenied": "does not let this access key {what}: give its user the rights listed in docs/reference/store.md",
    "RequestTimeTooSkewed": "has another time than this host, by minutes: set the clocks of both, as NTP does",
    "PermanentRedirect": "is not where bucket {bucket!r} is: check EDGEJOULE_S3_REGION and EDGEJOULE_S3_ENDPOINT",
    "AuthorizationHeaderMalformed": "does not accept the region: check EDGEJOULE_S3_REGION",
    "XMinioStorageFull": "has no room left: make room and run again; all that is finished is kept",
    "QuotaExceeded": "has no room left for {bucket!r}: raise its quota and run again; all that is finished is kept",
}
_BY_STATUS = {301: "PermanentRedirect", 403: "AccessDenied", 507: "XMinioStorageFull"}  # HEAD has no code
_PASSING = {"RequestTimeout", "SlowDown", "Throttling", "OperationAborted", "ConditionalRequestConflict"}
_GONE = frozenset({"NoSuchKey", "404", "NotFound"})
_TAKEN = frozenset({"PreconditionFailed", "412"})


@dataclass(frozen=True)
class Object:
    """What a listing tells of an object."""

    key: str
    size_bytes: int
    changed: datetime


class Bucket:
    """The objects below a prefix of a bucket; from any thread.

    Raises (every method):
        StoreError: the server refuses, or went on failing for ``patience_s``.
    """

    def __init__(
        self,
        name: str,
        prefix: str,
        *,
        endpoint: str | None,
        access_key: str,
        secret_key: str,
        region: str,
        patience_s: float = PATIENCE_S,
    ) -> None:
        try:
            from boto3.session import Session
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError as error:
            raise StoreError(
                f"the store s3://{name} needs an S3 client, which is missing: pip install 'edgejoule[stack]'"
            ) from error
        self.name = name
        self.patience_s = patience_s
        self.prefix = prefix
        self._prefix = f"{prefix}/" if prefix else ""
        settings = Config(
            connect_timeout=5,
            read_timeout=30,
            max_pool_connections=32,
            tcp_keepalive=True,
            retries={"total_max_attempts": 1},  # we try again ourselves, for as long as we say
            s3={"addressing_style": "path" if endpoint else "auto", "payload_signing_enabled": True},
            request_checksum_calculation="when_required",  # the signature holds the sha256 of what is sent
            response_checksum_validation="when_required",
        )
        try:
            self._client: Any = Session(access_key, secret_key, region_name=region).client(
                "s3", endpoint_url=endpoint, config=settings
            )
        except (BotoCoreError, ValueError) as error:
            raise StoreError(f"the S3 server {endpoint} cannot be named so ({error}): check EDGEJOULE_S3_*") from error
        self.endpoint: str = self._client.meta.endpoint_url

    # --- reading ---

    def read(self, key: str) -> bytes | None:
        """An object's bytes; None when there is none."""

        def get() -> Any:
            return self._client.get_object(**self._at(key))["Body"].read()

        content: bytes | None = self._ask(get, f"read {key}", absent=_GONE)
        return content

    def download(self, key: str, file: Path) -> str | None:
        """Write an object's bytes to a file; gives their sha256, None when there is no object."""

        def get() -> str:
            body = self._client.get_object(**self._at(key))["Body"]
            digest = hashlib.sha256()
            with open(file, "wb") as target:
                for chunk in body.iter_chunks(_CHUNK_BYTES):
                    digest.update(chunk)
                    target.write(chunk)
            return digest.hexdigest()

        sha256: str | None = self._ask(get, f"read {key}", absent=_GONE)
        return sha256

    def size_bytes(self, key: str) -> int | None:
        """The size of an object; None when there is none."""
        head = self._head(key)
        return None if head is None else int(head["ContentLength"])

    def objects(self, prefix: str, most: int | None = None) -> Iterator[Object]:
        """The objects below a prefix, in order of their keys; a request for each thousand, none for more than asked."""
        place: dict[str, Any] = {}
        left = most
        while True:
            size = {} if left is None else {"MaxKeys": min(left, 1000)}
            page = self._ask(
                lambda query={**place, **size}: self._client.list_objects_v2(  # type: ignore[misc]
                    Bucket=self.name, Prefix=self._prefix + prefix, **query
                ),
                f"list {prefix}*",
            )
            for entry in page.get("Contents", ()):
                yield Object(entry["Key"].removeprefix(self._prefix), int(entry["Size"]), entry["LastModified"])
            left = None if left is None else left - len(page.get("Contents", ()))
            if not page.get("IsTruncated") or left == 0:
                return
            place = {"ContinuationToken": page["NextContinuationToken"]}

    # --- writing ---

    def write(self, key: str, data: bytes) -> None:
        """Make an object, in place of an earlier one."""
        self._ask(lambda: self._client.put_object(**self._at(key), Body=data), f"write {key}")

    def create(self, key: str, data: bytes) -> bool:
        """Make an object if there is none; whether it was this call that made it.

        A fault may hide that it was: a caller whom that matters to reads the object when told False.
        """
        answer = self._ask(
            lambda: self._client.put_object(**self._at(key), Body=data, IfNoneMatch="*"),
            f"write {key}",
            absent=_TAKEN,
        )
        return answer is not None

    def upload(self, key: str, file: Path) -> None:
        """Have a file under a key that says what is in it: written once, unless what is there is not that."""
        size_bytes = file.stat().st_size
        part_bytes = max(PART_BYTES, -(-size_bytes // _MOST_PARTS))
        if size_bytes <= part_bytes:
            data = file.read_bytes()
            if not self.create(key, data) and not _is(self._head(key), size_bytes, _etag(file, part_bytes)):
                self.write(key, data)
            return
        there = self._head(key)
        if there is None or not _is(there, size_bytes, _etag(file, part_bytes)):
            self._upload_parts(key, file, size_bytes, part_bytes, {"IfNoneMatch": "*"} if there is None else {})

    def _upload_parts(self, key: str, file: Path, size_bytes: int, part_bytes: int, condition: dict[str, str]) -> None:
        """What is not completed is no object; the server's lifecycle rule removes what a killed process leaves."""
        at = self._at(key)
        what = f"write {key}"
        upload = self._ask(lambda: self._client.create_multipart_upload(**at), what)["UploadId"]
        try:
            with open(file, "rb") as source, ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:

                def send(number: int) -> dict[str, Any]:
                    data = os.pread(source.fileno(), part_bytes, (number - 1) * part_bytes)
                    sent = self._ask(
                        lambda: self._client.upload_part(**at, UploadId=upload, PartNumber=number, Body=data), what
                    )
                    return {"PartNumber": number, "ETag": sent["ETag"]}

                parts = list(pool.map(send, range(1, -(-size_bytes // part_bytes) + 1)))
            done = self._ask(
                lambda: self._client.complete_multipart_upload(
                    **at, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
                ),
                what,
                absent=_TAKEN | {"NoSuchUpload"},  # another was quicker; or an answer of ours was lost
            )
            if done is None and self.size_bytes(key) != size_bytes:
                raise StoreError(f"the S3 server {self.endpoint} lost an upload of {key}: run the same command again")
        except BaseException:
            done = None
            raise
        finally:
            if done is None:
                with suppress(Exception):
                    self._client.abort_multipart_upload(**at, UploadId=upload)

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        self._ask(lambda: self._client.delete_object(**self._at(key)), f"delete {key}", absent=_GONE)

    # --- requests ---

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.name, "Key": self._prefix + key}

    def _head(self, key: str) -> Any:
        return self._ask(lambda: self._client.head_object(**self._at(key)), f"read {key}", absent=_GONE)

    def _ask(self, request: Callable[[], Any], what: str, absent: frozenset[str] = frozenset()) -> Any:
        """The answer to a request; None when it is refused with one of the codes ``absent``."""
        from botocore.exceptions import BotoCoreError, ClientError

        gives_up: float | None = None
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return request()
            except ClientError as error:
                code, status, message = _refusal(error)
                if code in absent:
                    return None
                if not (code in _PASSING or status == 429 or (status >= 500 and status not in (501, 507))):
                    raise StoreError(self._sentence(code, status, message, what)) from error
                fault: Exception = error
            except BotoCoreError as error:
                if not _may_pass(error):
                    raise StoreError(f"the S3 server {self.endpoint} cannot be asked to {what}: {error}") from error
                fault = error
            now = time.monotonic()
            gives_up = now + self.patience_s if gives_up is None else gives_up
            if now >= gives_up:
                raise StoreError(
                    f"the S3 server {self.endpoint} did not {what} within {self.patience_s:.0f} s ({_brief(fault)}): "
                    "check that it runs and can be reached, and EDGEJOULE_S3_ENDPOINT, then run the same command again"
                ) from fault
            time.sleep(min(pause_s * random.uniform(0.5, 1.0), max(gives_up - now, 0.0)))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _sentence(self, code: str, status: int, message: str, what: str) -> str:
        known = _WHAT_TO_DO.get(code) or _WHAT_TO_DO.get(_BY_STATUS.get(status, ""))
        if known:
            return f"the S3 server {self.endpoint} {known.format(bucket=self.name, what=what)}"
        return f"the S3 server {self.endpoint} refused to {what} ({code}: {message}): look into its log"


def _refusal(error: Any) -> tuple[str, int, str]:
    """Code, HTTP status and message of a refusal."""
    told = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return str(told.get("Code", "")), int(status), str(told.get("Message", ""))


def _may_pass(error: Exception) -> bool:
    """Whether a fault on the way to the server may be over in a while."""
    from botocore.exceptions import ConnectionError as NoConnection
    from botocore.exceptions import HTTPClientError, IncompleteReadError, SSLError

    passing = (NoConnection, HTTPClientError, IncompleteReadError)
    return isinstance(error, passing) and not isinstance(error, SSLError)


def _brief(error: Exception) -> str:
    from botocore.exceptions import ClientError, EndpointConnectionError

    if isinstance(error, EndpointConnectionError):
        return "no connection"
    if isinstance(error, ClientError):
        code, status, _ = _refusal(error)
        return f"{status} {code}"
    return str(error).rstrip(".") or type(error).__name__


def _is(head: Any, size_bytes: int, etag: str) -> bool:
    return head is not None and head["ContentLength"] == size_bytes and head["ETag"].strip('"') == etag


def _etag(file: Path, part_bytes: int) -> str:
    """What S3 says of an unencrypted object's content: its MD5, or that of the MD5s of its parts."""
    digests = []
    with open(file, "rb") as source:
        while part := source.read(part_bytes):
            digests.append(hashlib.md5(part, usedforsecurity=False).digest())
    if len(digests) <= 1:
        return (digests or [hashlib.md5(b"", usedforsecurity=False).digest()])[0].hex()
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"
