"""Sending files to a repository of the Hub in one commit, with errors that say what to do. Which files is
decided in `files`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id
from transformers.utils.hub import hf_api

from pos_hf.errors import InputError
from pos_hf.hub.files import Files

WAITS = (1, 4)
"""Seconds before each further attempt."""
CURES = {
    401: "the Hub does not know the token; log in with `hf auth login`, or set HF_TOKEN",
    403: "the token may not write there; use one with write access",
    404: "there is no such repository, or the token may not see it",
    409: "something else changes the repository at the moment; push again",
    413: "a file is larger than the Hub takes from this account",
}


def check_repository(repository: str) -> None:
    """Refuse a name that cannot be a repository.

    Raises:
        InputError: the name is not `user/name`.
    """
    try:
        validate_repo_id(repository)
        if repository.count("/") != 1:
            raise HFValidationError(repository)
    except HFValidationError as error:
        raise InputError(
            f"{repository!r} cannot be a repository: write user/name, with letters, digits, - _ and ."
        ) from error


def size(content: Path | bytes) -> int:
    """Bytes of a file or of its content."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def upload(
    files: Files,
    repository: str,
    *,
    message: str = "Upload a model trained with pos_hf",
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    kind: Literal["model", "space"] = "model",
) -> str:
    """Create the repository where it does not exist, and commit the files to it, all of them or none.

    Args:
        files: what to upload.
        repository: `user/name`, or a name alone for the token's own user.
        message: of the commit.
        token: None takes the one that is logged in.
        private: of a repository that is created here.
        revision: branch, None for main.
        kind: of the repository; a Space is one of gradio.

    Returns:
        The repository's address.

    Raises:
        InputError: the Hub refuses, or cannot be reached; it holds what it held before.
    """

    def commit() -> str:
        options: dict[str, Any] = {"token": token, "repo_type": kind}
        sdk = "gradio" if kind == "space" else None
        url = hf_api().create_repo(repository, private=private, exist_ok=True, space_sdk=sdk, **options)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        hf_api().create_commit(url.repo_id, operations, commit_message=message, revision=revision, **options)
        return str(url)

    with hub_errors(repository):
        for seconds in WAITS:
            try:
                return commit()
            except (HTTPError, OSError, RuntimeError) as error:
                if not _passes(error):
                    raise
            time.sleep(seconds)
        return commit()


@contextmanager
def hub_errors(repository: str) -> Iterator[None]:
    """Turn what goes wrong while talking to the Hub into one sentence.

    Args:
        repository: that is talked about.

    Raises:
        InputError: in place of the Hub's own errors.
    """
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise InputError(f"{repository!r} was not updated: HF_HUB_OFFLINE is set; unset it") from error
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        cause, status = _cause(error), _status(error)
        reason = " ".join(str(cause).split())
        if status in CURES:
            reason = f"{CURES[status]} (HTTP {status})"
        elif status is not None and status >= 500:
            reason = f"the Hub is in trouble; push again later (HTTP {status})"
        elif status is None and isinstance(cause, HTTPError):
            reason = f"the Hub cannot be reached ({reason}); push again"
        raise InputError(f"{repository!r} was not updated: {reason}") from error


def _passes(error: BaseException) -> bool:
    """Whether trying again may help: the server failed, or the connection was cut."""
    status = _status(error)
    return isinstance(_cause(error), HTTPError) and (status is None or status >= 500)


def _status(error: BaseException) -> int | None:
    cause = _cause(error)
    return cause.response.status_code if isinstance(cause, HfHubHTTPError) else None


def _cause(error: BaseException) -> BaseException:
    """The request's own error, which the upload of large files wraps in another."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error
