"""URLs of servers: what a run's config.yaml may keep, and what would give a key away."""

import pytest

from dgr_lightning.engines.server.url import check_url
from dgr_lightning.errors import UserError


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://user:secret@127.0.0.1:8000/v1", "OPENAI_API_KEY"),
        ("https://secret@example.org/v1", "OPENAI_API_KEY"),
        ("https://example.org/v1?key=secret", "OPENAI_API_KEY"),
        ("https://example.org/v1#secret", "OPENAI_API_KEY"),
        ("127.0.0.1:8000/v1", "no http:// or https:// URL"),
        ("ftp://127.0.0.1/v1", "no http:// or https:// URL"),
        ("http://:8000/v1", "no http:// or https:// URL"),
        ("http://127.0.0.1:port/v1", "engine.url is no URL"),
    ],
)
def test_addresses_that_are_refused(url, message):
    with pytest.raises(UserError, match=message) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)
    assert check_url("http://[::1]:8000/v1/") == "http://[::1]:8000/v1"
