"""What an error of Redis means for qtasks: come again later, or stop."""

from __future__ import annotations

import re
import ssl

from redis import exceptions as redis_errors

from qtasks.errors import BackendError, FatalError, TransientError

_TRANSIENT_CODES = (
    "LOADING", "BUSY", "READONLY", "OOM", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK",
    "NOREPLICAS", "MISCONF", "UNBLOCKED", "NOSCRIPT", "UNKILLABLE",
)  # fmt: skip
_TRANSIENT = (
    redis_errors.BusyLoadingError, redis_errors.ReadOnlyError, redis_errors.OutOfMemoryError,
    redis_errors.ClusterDownError, redis_errors.TryAgainError, redis_errors.MovedError,
    redis_errors.AskError, redis_errors.NoScriptError,
)  # fmt: skip
_FATAL_ADVICE = {
    redis_errors.AuthenticationError: "Correct the username and password in the URL.",
    redis_errors.AuthorizationError: "Correct the username and password in the URL.",
    redis_errors.AuthenticationWrongNumberOfArgsError: "Correct the username and password in the URL.",
    redis_errors.NoPermissionError: "Give the user the rights of the ACL in docs/redis.md.",
}
_FATAL_CODES = {
    "NOAUTH": "Put the username and password into the URL.",
    "WRONGPASS": "Correct the username and password in the URL.",
    "NOPERM": "Give the user the rights of the ACL in docs/redis.md.",
    "WRONGTYPE": "Another program uses keys of this app's namespace: choose another app name or database.",
    "CROSSSLOT": "Use a redis+cluster:// URL for a cluster.",
}


_FROM_SCRIPT = re.compile(r"@user_script: ?\d+: -?([A-Z]+) ")
"""Before Redis 7, an error of a command inside a script stands behind words about the script."""


class Disconnected(redis_errors.ConnectionError):
    """The connection was lost with commands under way; it is not known whether they were carried out."""


def backend_error(error: BaseException, where: str) -> BackendError:
    """The qtasks error for one of redis-py or of the socket.

    Parameters:
        error: what was raised.
        where: the masked URL, for the message.
    """
    text = str(error)
    if isinstance(_root(error), ssl.SSLCertVerificationError):
        return FatalError(
            f"The certificate of Redis at {where} is not accepted: {_root(error)}. Name its authority with "
            "ssl_ca_certs in the URL; ssl_check_hostname=no accepts another host name."
        )
    code = _code(text)
    for kind, advice in _FATAL_ADVICE.items():
        if isinstance(error, kind):
            return FatalError(f"Redis at {where} refuses: {text}. {advice}")
    if code in _FATAL_CODES:
        return FatalError(f"Redis at {where} refuses: {text}. {_FATAL_CODES[code]}")
    if isinstance(error, _TRANSIENT) or code in _TRANSIENT_CODES or _from_script(text):
        return TransientError(f"Redis at {where} cannot serve now: {text}")
    if isinstance(error, redis_errors.ResponseError):
        # What is left are errors of use: an unknown command (a server too old), a script that fails.
        return FatalError(f"Redis at {where} does not understand this version of qtasks: {text}")
    return TransientError(f"Redis at {where} is away: {text or type(error).__name__}")


def _code(text: str) -> str:
    """The word with which the server says what kind of error it is."""
    inner = _FROM_SCRIPT.search(text)
    return text.split(" ", 1)[0].rstrip(":") if inner is None else inner[1]


def _root(error: BaseException) -> BaseException:
    """What an error was raised from."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _from_script(text: str) -> bool:
    """Errors of a command inside a script keep their code, but some servers put words before it."""
    return any(f" {code} " in text for code in ("OOM", "READONLY", "MISCONF", "NOREPLICAS"))


def wants_relocation(error: BaseException) -> bool:
    """Whether the server answered that it is not the one (any more): nothing was carried out."""
    moved = isinstance(error, redis_errors.MovedError | redis_errors.ReadOnlyError | redis_errors.AskError)
    return moved or _code(str(error)) == "READONLY"
