"""Settings from the environment and from code."""

from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from qtasks import QueueConfig


def test_code_goes_before_the_environment_and_that_before_the_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QTASKS_LEASE", "7.5")
    monkeypatch.setenv("QTASKS_CONCURRENCY", "3")
    monkeypatch.setenv("QTASKS_STRICT", "1")
    monkeypatch.setenv("QTASKS_QUEUES", '["mail", "default"]')
    config = QueueConfig(concurrency=9)
    assert (config.lease, config.concurrency, config.strict) == (7.5, 9, True)
    assert config.queues == ("mail", "default")
    assert config.threads == 32


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [("QTASKS_LEASE", "-1", "lease"), ("QTASKS_QUEUES", "mail,default", "QTASKS_QUEUES is a list as JSON")],
)
def test_a_wrong_value_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError, match=told) as raised:
        QueueConfig(url="redis://:hunter2@host/0", digest_key=SecretStr("swordfish"))
    assert not any(secret in str(raised.value) for secret in ("hunter2", "swordfish"))
