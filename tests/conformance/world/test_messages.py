"""What a load tells is kept by level and logger, and searched for a secret."""

from __future__ import annotations

import logging
import warnings

import pytest

from conformance.world.messages import quiet

SECRET = "hf_of_the_caller"


def test_what_is_told_is_kept_and_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet() as messages:
        logging.getLogger("transformers.modeling_utils").warning("one")
        logging.getLogger("huggingface_hub").error("two")
        warnings.warn("three", FutureWarning, stacklevel=1)
        print("four")
        kinds = messages.kinds()

    wanted = ["WARNING transformers.modeling_utils", "ERROR huggingface_hub"]
    assert kinds == [*wanted, "warning FutureWarning"]
    assert capfd.readouterr() == ("", "")


def test_a_secret_is_found_wherever_it_is_told() -> None:
    with quiet() as messages:
        assert messages.places_of(SECRET) == []
        logging.getLogger("transformers").warning("with %s", {"token": SECRET})
        warnings.warn(SECRET, stacklevel=1)
        print(SECRET)

        assert messages.places_of(SECRET) == ["log of transformers", "warning", "stdout"]

        messages.clear()
        assert messages.places_of(SECRET) == messages.kinds() == []
