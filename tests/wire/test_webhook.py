"""Signed messages, by the Standard Webhooks specification."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.wire.webhook import headers_of, key_of, refusal

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = key_of(SECRET)
OTHER = b"o" * 32
BODY = b'{"test": 2432232314}'
NOW = 1614265330


def test_the_signature_is_the_one_of_the_reference_libraries() -> None:
    assert headers_of([KEY], "msg_p5jXN8AQM9LWM0D4loKWxJek", BODY, NOW) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@given(body=st.binary(max_size=200), keys=st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=3))
def test_what_was_signed_with_any_of_the_keys_is_believed_by_whoever_knows_one(body: bytes, keys: list[bytes]) -> None:
    headers = headers_of(keys, "m1", body, NOW)
    for key in keys:
        assert refusal([key], headers, body, NOW, 300) is None
        assert refusal([OTHER, key], headers, body, NOW + 300, 300) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"webhook-id": "m2"}, "no signature fits"),
        ({"webhook-timestamp": str(NOW + 1)}, "no signature fits"),
        ({"webhook-timestamp": str(NOW + 301)}, "300 s away"),
        ({"webhook-timestamp": str(NOW - 301)}, "300 s away"),
        ({"webhook-timestamp": "soon"}, "no number"),
        ({"webhook-timestamp": "-5"}, "no number"),
        ({"webhook-timestamp": "9" * 30}, "no number"),
        ({"webhook-timestamp": "\u0661"}, "no number"),
        ({"webhook-signature": ""}, "it has no"),
        ({"webhook-id": ""}, "it has no"),
        ({"webhook-signature": "v1"}, "no signature fits"),
        ({"webhook-signature": "v1, "}, "no signature fits"),
        ({"webhook-signature": "v1,\u00e9"}, "no signature fits"),
    ],
)
def test_a_message_that_was_changed_or_comes_late_is_not_believed(change: dict[str, str], why: str) -> None:
    headers = headers_of([KEY], "m1", BODY, NOW) | change
    assert why in str(refusal([KEY], headers, BODY, NOW, 300))


def test_signatures_of_other_versions_do_not_count() -> None:
    headers = headers_of([KEY], "m1", BODY, NOW)
    signature = headers["webhook-signature"].removeprefix("v1,")
    assert refusal([KEY], headers | {"webhook-signature": f"v1a,{signature}"}, BODY, NOW, 300)
    assert refusal([KEY], headers | {"webhook-signature": f"v2,x v1,{signature}"}, BODY, NOW, 300) is None


def test_another_body_is_not_believed() -> None:
    assert refusal([KEY], headers_of([KEY], "m1", BODY, NOW), BODY + b" ", NOW, 300) == "no signature fits"


@pytest.mark.parametrize("secret", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_###", b"short", b"x" * 65])
def test_what_is_no_secret_is_said(secret: str | bytes) -> None:
    with pytest.raises(ValueError, match="secret of webhooks"):
        key_of(secret)


def test_a_secret_may_be_bytes_or_base64() -> None:
    assert key_of(OTHER) == OTHER == key_of("whsec_" + base64.b64encode(OTHER).decode())
