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

LIVE = {"STRIPE_SECRET_KEY": "sk_live_x", "FRONTEND_URL": "https://www.example.com"}


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
    assert (config.upload_rate, config.checkout_rate) == ((), ())


def test_defaults_are_for_a_developers_machine() -> None:
    config = Config.from_env({})
    assert config.image_seconds == 3600
    assert config.max_image_bytes == 5 * 1024 * 1024
    assert config.return_url == "http://localhost:3000/hero-me?session_id={CHECKOUT_SESSION_ID}"


def test_customers_return_to_the_first_origin() -> None:
    config = Config.from_env({"FRONTEND_URL": "https://Hero.example/, http://localhost:5173"})
    assert config.frontend_origins == ("https://hero.example", "http://localhost:5173")
    assert config.return_url.startswith("https://hero.example/hero-me?")


def test_settings_that_go_together_are_no_fault() -> None:
    Config.from_env({**LIVE, "FRONTEND_URL": "https://www.example.com, http://localhost:3000"})
    for currency, amount in (
        ("usd", 50),
        ("huf", 17500),
        ("jpy", 50),
        ("krw", 99),
        ("isk", 300),
        ("kwd", 5120),
        ("xyz", 1),
    ):
        Config.from_env({"HEROIMG_CURRENCY": currency, "HEROIMG_UNIT_AMOUNT": str(amount)})


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("HTTPS://WWW.Example.com/", "https://www.example.com"),
        ("https://www.example.com:443", "https://www.example.com"),
        ("https://www.example.com:00443", "https://www.example.com"),
        ("http://www.example.com:80", "http://www.example.com"),
        ("http://www.example.com:443", "http://www.example.com:443"),
        ("https://www.example.com:8443", "https://www.example.com:8443"),
        ("http://192.0.2.1:65535", "http://192.0.2.1:65535"),
        ("http://[0:0:0:0:0:0:0:1]:3000", "http://[::1]:3000"),
        ("https://[2001:DB8::0:1]", "https://[2001:db8::1]"),
        ("https://Müller.example", "https://xn--mller-kva.example"),
        ("https://xn--mller-kva.example", "https://xn--mller-kva.example"),
        ("https://a_b.example", "https://a_b.example"),
        ("https://A_b.Müller.example", "https://a_b.xn--mller-kva.example"),
        ("https://www.example.", "https://www.example."),
        ("https://www.example.:8443", "https://www.example.:8443"),
        ("https://Müller.example.", "https://xn--mller-kva.example."),
        ("http://192.0.2.1.", "http://192.0.2.1"),
    ],
)
def test_origins_are_compared_as_browsers_send_them(written: str, sent: str) -> None:
    assert Config.from_env({"FRONTEND_URL": f"http://a.example, {written}"}).frontend_origins[1] == sent
    assert Config.from_env({"STRIPE_API_BASE": written}).stripe_api_base == sent


@pytest.mark.parametrize(
    "written",
    [
        "*", "null", "www.example.com", "ftp://www.example.com", "https://", "https://www.example.com/shop",
        "https://me@www.example.com", "https://*.example.com", "https://www.example.com:99999",
        "https://www.example.com:0", "https://www..example", "https://.example", "https://.",
        "https://" + "a" * 64, "https://a b.example", "https://a%62.example", "https://☃.example",
        "http://[::1", "http://[::1%25lo]", "http://[::ffff:192.0.2.1]", "http://[1]", "http://256.0.0.1",
        "http://127.1", "http://0x7f.1", "https://a_b.1.", "capacitor://localhost:80", "",
    ],
)  # fmt: skip
def test_an_origin_that_no_browser_sends_is_a_fault(written: str) -> None:
    (fault,) = faults({"FRONTEND_URL": f"http://a.example,{written}"})
    assert fault.startswith("FRONTEND_URL must be an origin without a path: http:// or https://, a host")
    assert repr(written) in fault


def test_apps_are_further_origins_and_never_the_first() -> None:
    origins = "https://www.example.com, capacitor://localhost, Ionic://localhost"
    assert Config.from_env({"FRONTEND_URL": origins}).frontend_origins[1:] == (
        "capacitor://localhost",
        "ionic://localhost",
    )
    (fault,) = faults({"FRONTEND_URL": "capacitor://localhost, https://www.example.com"})
    assert "must start with the http:// or https:// origin" in fault


def test_the_time_to_return_is_long_enough_for_a_webhook() -> None:
    (fault,) = faults({"HEROIMG_RETURN_SECONDS": "59"})
    assert fault.startswith(
        "HEROIMG_RETURN_SECONDS must be a whole number from 60 to 86400 (the webhook of a last-minute payment must "
        "find the picture), not '59'"
    )
    assert Config.from_env({"HEROIMG_RETURN_SECONDS": "60"}).return_seconds == 60


def test_a_claim_is_long_enough_to_be_renewed() -> None:
    (fault,) = faults({"HEROIMG_CLAIM_SECONDS": "9"})
    assert fault == (
        "HEROIMG_CLAIM_SECONDS must be a whole number from 10 to 86400 (a slow reader's claim must be renewed before "
        "it lapses), not '9'; for example 300"
    )
    assert Config.from_env({"HEROIMG_CLAIM_SECONDS": "10"}).claim_seconds == 10


def test_the_folder_of_an_unknown_user_is_a_fault_among_the_others() -> None:
    reported = faults({"HEROIMG_UPLOAD_DIR": "~nosuchuser/uploads", "HEROIMG_METRICS": "yes"})
    assert reported[0].startswith("HEROIMG_UPLOAD_DIR must be a folder whose ~user exists on this machine")
    assert reported[1].startswith("HEROIMG_METRICS ")


# The variables of a pod for the Services "heroimg" and "heroimg-redis".
KUBERNETES = {
    "HEROIMG_SERVICE_HOST": "10.96.13.7",
    "HEROIMG_SERVICE_PORT": "3000",
    "HEROIMG_SERVICE_PORT_HTTP": "3000",
    "HEROIMG_PORT": "tcp://10.96.13.7:3000",
    "HEROIMG_PORT_3000_TCP": "tcp://10.96.13.7:3000",
    "HEROIMG_PORT_3000_TCP_PROTO": "tcp",
    "HEROIMG_PORT_3000_TCP_PORT": "3000",
    "HEROIMG_PORT_3000_TCP_ADDR": "10.96.13.7",
    "HEROIMG_REDIS_SERVICE_HOST": "10.96.88.1",
    "HEROIMG_REDIS_PORT": "tcp://10.96.88.1:6379",
    "HEROIMG_REDIS_PORT_6379_TCP_ADDR": "10.96.88.1",
}


def test_variables_of_a_kubernetes_service_are_ignored_and_misspelt_settings_are_not() -> None:
    assert Config.from_env(KUBERNETES) == Config.from_env({})
    misspelt = {
        "HEROIMG_PORT": "8000",
        "HEROIMG_SERVICE_HOSTS": "x",
        "HEROIMG_PORT_X": "1",
        "HEROIMG_SWEEP_SECOND": "1",
    }
    reported = faults({**KUBERNETES, **misspelt})
    assert {fault.partition(" is not a setting")[0] for fault in reported} == set(misspelt)


def test_a_misspelt_setting_is_named_with_the_nearest() -> None:
    assert faults({"HEROIMG_UPLOAD_DIRR": "/srv"}) == [
        "HEROIMG_UPLOAD_DIRR is not a setting; did you mean HEROIMG_UPLOAD_DIR?"
    ]


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({"STRIPE_SECRET_KEY": "sk_test_x", "HEROIMG_IMAGE_SECONDS": "3000"}, "1920"),
        ({"STRIPE_SECRET_KEY": "sk_test_x", "HEROIMG_IMAGE_SECONDS": "100000"}, "86280"),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_x"}, "STRIPE_SECRET_KEY"),
        ({"HEROIMG_UPLOAD_RATE": "0 per minute"}, "60 per minute"),
        ({"STRIPE_SECRET_KEY": "sk_test_x", "STRIPE_PUBLISHABLE_KEY": "pk_live_x"}, "must be of the same mode"),
        ({**LIVE, "STRIPE_API_BASE": "http://localhost:1"}, "STRIPE_API_BASE"),
        ({**LIVE, "FRONTEND_URL": "http://www.example.com, https://a.example"}, "http://www.example.com"),
        ({"HEROIMG_UNIT_AMOUNT": "49"}, "is 49, but Stripe's minimum for usd is 50; for example 200"),
        ({"HEROIMG_CURRENCY": "gbp", "HEROIMG_UNIT_AMOUNT": "29"}, "30"),
        ({"HEROIMG_CURRENCY": "HUF"}, "17500"),
        ({"HEROIMG_CURRENCY": "jpy", "HEROIMG_UNIT_AMOUNT": "2"}, "50"),
        ({"HEROIMG_CURRENCY": "isk", "HEROIMG_UNIT_AMOUNT": "5"}, "multiples of 100"),
        ({"HEROIMG_CURRENCY": "kwd", "HEROIMG_UNIT_AMOUNT": "5124"}, "multiples of 10"),
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
        shelves: int = setting("HEROIMG_SHELVES", parsers.whole(1, 9), "3", "See docs/redis.md.")

    assert Extended.from_env({"HEROIMG_SHELVES": "4"}).shelves == 4  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="HEROIMG_SHELVES must be a whole number from 1 to 9, not 'x'; for example 3"):
        Extended.from_env({"HEROIMG_SHELVES": "x"})
    assert generated.env_example(Extended) == (generated.env_example() + "\n# See docs/redis.md.\nHEROIMG_SHELVES=3\n")
    table = generated.with_table(f"{generated.BEGIN}{generated.END}", Extended)
    assert "| `HEROIMG_SHELVES` | `3` | See [redis.md](redis.md). |" in table


def test_the_environment_is_read_in_one_place() -> None:
    modules = [path for path in (ROOT / "heroimg").rglob("*.py") if re.search(r"os\.environ|getenv", path.read_text())]
    assert {path.name for path in modules} == {
        "counters.py",  # sets a variable that its library reads
        "gunicorn_conf.py",
        "wsgi.py",
    }
