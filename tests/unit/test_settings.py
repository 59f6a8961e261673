"""Settings: declared once, read once, checked together, every fault in one message."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from docs import settings as generated
from heroimg import parsers
from heroimg.config import Config, ConfigError, setting, settings_of
from tests.helpers.bad_settings import BAD
from tests.helpers.serving import ROOT


def faults(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Config.from_env(environ)
    return caught.value.faults


def test_every_setting_has_a_bad_value_here() -> None:
    assert list(BAD) == [declared.name for declared in settings_of(Config).values() if "_DIR" not in declared.name]


def test_all_faults_are_in_one_message_with_what_would_be_right() -> None:
    reported = faults(BAD)
    assert [fault.partition(" ")[0] for fault in reported] == list(BAD)
    examples = {declared.name: declared.example for declared in settings_of(Config).values()}
    for name, fault in zip(BAD, reported, strict=True):
        assert re.fullmatch(rf"{name} must .+; for example {re.escape(examples[name])}", fault)


def test_examples_are_good_values() -> None:
    keys = {"sk_test_...": "sk_test_x", "pk_test_...": "pk_test_x", "whsec_...": "whsec_x"}
    environ = {declared.name: keys.get(declared.example, declared.example) for declared in settings_of(Config).values()}
    Config.from_env(environ)


def test_a_fault_shows_the_value_unless_it_is_secret() -> None:
    reported = dict(zip(BAD, faults(BAD), strict=True))
    assert reported["HEROIMG_IMAGE_SECONDS"] == (
        "HEROIMG_IMAGE_SECONDS must be a whole number from 1 to 2592000, not 'an hour'; for example 3600"
    )
    secret = {declared.name for declared in settings_of(Config).values() if declared.is_secret}
    assert secret == {"STRIPE_SECRET_KEY", "STRIPE_PUBLISHABLE_KEY", "STRIPE_WEBHOOK_SECRET", "REDIS_URL"}
    assert [name for name in secret if ", not " in reported[name]] == []


def test_secrets_are_not_in_the_settings_when_they_are_printed() -> None:
    config = Config.from_env({"STRIPE_SECRET_KEY": "sk_test_shh", "REDIS_URL": "redis://:shh@localhost"})
    assert "shh" not in repr(config)
    assert "shh" not in config.storage_location


def test_an_empty_value_counts_as_not_set() -> None:
    assert Config.from_env(dict.fromkeys(BAD, "  ")) == Config.from_env(
        {"HEROIMG_UPLOAD_RATE": "", "HEROIMG_CHECKOUT_RATE": ""}
    )


def test_an_empty_rate_is_no_limit() -> None:
    config = Config.from_env({"HEROIMG_UPLOAD_RATE": "", "HEROIMG_CHECKOUT_RATE": " "})
    assert (config.upload_rate, config.checkout_rate) == ("", "")


def test_defaults_are_for_a_developers_machine() -> None:
    config = Config.from_env({})
    assert config.image_seconds == 3600
    assert config.max_image_bytes == 5 * 1024 * 1024
    assert config.return_url == "http://localhost:3000/hero-me?session_id={CHECKOUT_SESSION_ID}"


def test_customers_return_to_the_first_origin() -> None:
    config = Config.from_env({"FRONTEND_URL": "https://Hero.example/, http://localhost:5173"})
    assert config.frontend_origins == ("https://hero.example", "http://localhost:5173")
    assert config.return_url.startswith("https://hero.example/hero-me?")


def test_a_misspelt_setting_is_named_with_the_nearest() -> None:
    assert faults({"HEROIMG_UPLOAD_DIRR": "/srv"}) == [
        "HEROIMG_UPLOAD_DIRR is no setting; the nearest is HEROIMG_UPLOAD_DIR"
    ]


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({"STRIPE_SECRET_KEY": "sk_test_x", "HEROIMG_IMAGE_SECONDS": "3000"}, "1920"),
        ({"STRIPE_SECRET_KEY": "sk_test_x", "HEROIMG_IMAGE_SECONDS": "100000"}, "86280"),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_x"}, "STRIPE_SECRET_KEY"),
        ({"HEROIMG_UPLOAD_RATE": "0 per minute"}, "60 per minute"),
        ({"HEROIMG_UNIT_AMOUNT": "49"}, "50"),
        ({"STRIPE_SECRET_KEY": "sk_test_x", "STRIPE_PUBLISHABLE_KEY": "pk_live_x"}, "different modes"),
        ({"STRIPE_SECRET_KEY": "sk_live_x", "STRIPE_API_BASE": "http://localhost:1"}, "live"),
    ],
)
def test_settings_that_do_not_go_together_are_reported_with_both_numbers(environ: dict[str, str], word: str) -> None:
    (fault,) = faults(environ)
    assert word in fault


def test_env_example_and_the_table_are_what_make_settings_writes() -> None:
    advice = "run `make settings`"
    assert generated.ENV_EXAMPLE.read_text() == generated.env_example(), advice
    document = generated.DOCUMENT.read_text()
    assert document == generated.with_table(document), advice


def test_env_example_is_the_defaults() -> None:
    listed = dict(re.findall(r"^([A-Z_]+)=(.*)$", generated.env_example(), re.MULTILINE))
    assert Config.from_env({name: value.strip('"') for name, value in listed.items()}) == Config.from_env({})


def test_one_line_adds_a_setting_to_the_check_the_example_and_the_table() -> None:
    @dataclass(frozen=True)
    class Extended(Config):
        shelves: int = setting("HEROIMG_SHELVES", parsers.whole(1, 9), "3", "See docs/scale.md.")

    assert Extended.from_env({"HEROIMG_SHELVES": "4"}).shelves == 4  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="HEROIMG_SHELVES must be a whole number from 1 to 9, not 'x'; for example 3"):
        Extended.from_env({"HEROIMG_SHELVES": "x"})
    assert generated.env_example(Extended) == (generated.env_example() + "\n# See docs/scale.md.\nHEROIMG_SHELVES=3\n")
    table = generated.with_table(f"{generated.BEGIN}{generated.END}", Extended)
    assert "| `HEROIMG_SHELVES` | `3` | See [scale.md](scale.md). |" in table


def test_the_environment_is_read_in_one_place() -> None:
    modules = [path for path in (ROOT / "heroimg").rglob("*.py") if re.search(r"os\.environ|getenv", path.read_text())]
    assert {path.name for path in modules} == {
        "counters.py",  # sets what its library reads
        "gunicorn_conf.py",
        "wsgi.py",
    }
