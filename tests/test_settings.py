"""Settings: where a value comes from, what is refused, and that every error is told at once."""

from __future__ import annotations

import secrets

import colander
import pytest

from customer_orders import main
from customer_orders.sections import CORE
from customer_orders.settings import InvalidSettings, Number, Section, Words, node, read, variable

KEY = secrets.token_urlsafe(64)
GOOD = {
    "app.public_url": "http://127.0.0.1:6543",
    "sqlalchemy.url": "sqlite:///nowhere/orders.sqlite",
    "jwt.private_key": KEY,
}


class Pigeon(colander.MappingSchema):
    """A plugin's section, such as its author would write it."""

    speed = colander.SchemaNode(Number(1, 100), missing=40)
    loft = colander.SchemaNode(colander.String())
    song = colander.SchemaNode(colander.String(allow_empty=True), missing="coo")
    rings = colander.SchemaNode(Words(), missing=())
    code = colander.SchemaNode(colander.String(), secret=True, missing=None)


def pigeon(ini, environ=None) -> Section:
    return read("pigeon", Pigeon, {"pigeon.loft": "roof", **ini}, environ or {})


def wrong(**settings):
    """What is wrong with a deployment of the given settings, by key."""
    with pytest.raises(InvalidSettings) as caught:
        main({}, **{**GOOD, **settings})
    return {error.key: error.message for error in caught.value.errors}


# -- where a value comes from -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ini", "environ", "value", "origin"),
    [
        ({}, {}, 40, "default"),
        ({"pigeon.speed": "50"}, {}, 50, "INI"),
        ({"pigeon.speed": "50"}, {"PIGEON_SPEED": "60"}, 60, "variable PIGEON_SPEED"),
        ({"pigeon.speed": " 50 "}, {"PIGEON_SPEED": " "}, 50, "INI"),
        ({"pigeon.speed": "  "}, {"PIGEON_SPEED": ""}, 40, "default"),
        ({}, {"PIGEON_SPEED": " 60\n", "PIGEON_SPEED_FILE": ""}, 60, "variable PIGEON_SPEED"),
    ],
)
def test_the_environment_wins_over_the_ini_and_that_over_the_default(ini, environ, value, origin):
    section = pigeon(ini, environ)
    assert (section.speed, section["speed"].value, section["speed"].origin) == (value, value, origin)


@pytest.mark.parametrize("contents", ["60", "60\n", "  60  \r\n"])
def test_a_value_may_come_from_a_file(tmp_path, contents):
    (tmp_path / "speed").write_text(contents)
    section = pigeon({"pigeon.speed": "50"}, {"PIGEON_SPEED_FILE": str(tmp_path / "speed")})
    assert (section.speed, section["speed"].origin) == (60, "file named by PIGEON_SPEED_FILE")


@pytest.mark.parametrize("name", ["speed", "code", "song"])
@pytest.mark.parametrize("contents", ["", " \n"])
def test_a_file_without_a_value_is_an_error_and_not_an_absent_value(tmp_path, name, contents):
    (tmp_path / name).write_text(contents)
    file = f"PIGEON_{name.upper()}_FILE"
    with pytest.raises(InvalidSettings) as caught:
        pigeon({f"pigeon.{name}": "50"}, {file: str(tmp_path / name)})
    told = {error.key: error.message for error in caught.value.errors}
    assert told == {f"pigeon.{name}": f"{file} names a file that is empty: {tmp_path / name}"}


@pytest.mark.parametrize(
    ("ini", "environ", "value", "origin"),
    [
        ({}, {}, "coo", "default"),
        ({"pigeon.song": " "}, {}, "", "INI"),
        ({"pigeon.song": "croo"}, {"PIGEON_SONG": ""}, "", "variable PIGEON_SONG"),
        ({"pigeon.song": ""}, {"PIGEON_SONG": "croo"}, "croo", "variable PIGEON_SONG"),
    ],
)
def test_a_setting_that_may_be_empty_takes_a_blank_value_for_a_value(ini, environ, value, origin):
    section = pigeon(ini, environ)
    assert (section.song, section["song"].origin) == (value, origin)


def test_a_variable_and_its_file_together_are_refused(tmp_path):
    (tmp_path / "speed").write_text("60")
    with pytest.raises(InvalidSettings, match="both PIGEON_SPEED and PIGEON_SPEED_FILE are set"):
        pigeon({}, {"PIGEON_SPEED": "60", "PIGEON_SPEED_FILE": str(tmp_path / "speed")})


@pytest.mark.parametrize("name", ["missing", "", "binary"])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path, name):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSettings, match=r"pigeon\.speed .*PIGEON_SPEED_FILE names a file that cannot be read"):
        pigeon({}, {"PIGEON_SPEED_FILE": str(tmp_path / name)})


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("app.public_url", "APP_PUBLIC_URL"),
        ("notifications.template.order_placed", "NOTIFICATIONS_TEMPLATE_ORDER_PLACED"),
        ("plugins", "PLUGINS"),
        ("my-pigeon.loft", "MY_PIGEON_LOFT"),
    ],
)
def test_each_key_has_one_variable(key, name):
    assert variable(key) == name


def test_every_key_of_the_core_has_a_variable_of_its_own_and_says_what_it_means():
    nodes = [(f"{name}.{node.name}", node) for name, schema in CORE.items() for node in schema().children]
    names = [variable(key) for key, _ in nodes]
    assert len(set(names)) == len(names)
    assert [key for key, node in nodes if not node.title.endswith(".")] == []


def test_a_section_is_read_by_attribute_and_by_key():
    section = pigeon({"pigeon.rings": "a, b c"})
    assert section.rings == section["rings"].value == ("a", "b", "c")
    assert [setting.key for setting in section] == [
        "pigeon.speed",
        "pigeon.loft",
        "pigeon.song",
        "pigeon.rings",
        "pigeon.code",
    ]
    with pytest.raises(AttributeError, match="'pigeon' has no setting 'sped'"):
        _ = section.sped


@pytest.mark.parametrize(
    "name",
    # names of mappings and of what sections and settings are made of
    ["name", "key", "keys", "items", "values", "value", "get", "pop", "schema", "node", "origin", "origins", "display"],
)
def test_a_setting_may_have_any_name(name):
    class Schema(colander.MappingSchema):
        """A section of one setting."""

        setting = colander.SchemaNode(colander.String(), name=name)

    section = read("pigeon", Schema, {f"pigeon.{name}": "mine"}, {})
    assert getattr(section, name) == section[name].value == "mine"


def _known_to_birds(node, word):
    if len(word) > 5:
        raise colander.Invalid(node, f"no bird knows {word}")


class Nest(colander.MappingSchema):
    """A section with a setting of which a deployment may have variants."""

    egg = node(colander.String(allow_empty=True), "What lies in it.", missing="white", variant=_known_to_birds)
    size = node(Number(1, 9), "How many fit in.", missing=4)


def nest(ini, environ=None):
    return {setting.key: (setting.value, setting.origin) for setting in read("nest", Nest, ini, environ or {})}


@pytest.mark.parametrize(
    ("ini", "environ", "variants"),
    [
        ({}, {}, {}),
        ({"nest.egg.sw": "blue"}, {}, {"nest.egg.sw": ("blue", "INI")}),
        ({"nest.egg.sw": " "}, {}, {"nest.egg.sw": ("", "INI")}),
        ({}, {"NEST_EGG_SW": "blue"}, {"nest.egg.sw": ("blue", "variable NEST_EGG_SW")}),
        ({}, {"NEST_EGG_SW_KE": "blue"}, {"nest.egg.sw-ke": ("blue", "variable NEST_EGG_SW_KE")}),
        ({"nest.egg.sw-KE": "x"}, {"NEST_EGG_SW_KE": "blue"}, {"nest.egg.sw-KE": ("blue", "variable NEST_EGG_SW_KE")}),
        # what is no variant of it
        ({}, {"NEST_EGG_SW": " ", "NEST_EGG_SW_FILE": "", "NEST_EGGS": "x", "NEST_SIZE_SW": "1"}, {}),
    ],
)
def test_a_deployment_may_have_variants_of_a_setting(ini, environ, variants):
    assert nest(ini, environ) == {"nest.egg": ("white", "default"), "nest.size": (4, "default"), **variants}


def test_variants_come_from_files_too(tmp_path):
    (tmp_path / "egg").write_text("blue\n")
    environ = {"NEST_EGG_FILE": str(tmp_path / "egg"), "NEST_EGG_SW_FILE": str(tmp_path / "egg")}
    told = nest({}, environ)
    assert told["nest.egg"] == ("blue", "file named by NEST_EGG_FILE")
    assert told["nest.egg.sw"] == ("blue", "file named by NEST_EGG_SW_FILE")
    assert len(told) == 3


@pytest.mark.parametrize(
    ("ini", "environ", "key", "says"),
    [
        ({"nest.egg.swahili": "x"}, {}, "nest.egg.swahili", "no bird knows swahili"),
        ({}, {"NEST_EGG_SWAHILI": "x"}, "nest.egg.swahili", "no bird knows swahili"),
        ({"nest.egg.sw": "x", "nest.egg.SW": "y"}, {}, "nest.egg.SW", "is nest.egg.sw in other letters; keep one"),
        ({"nest.size.sw": "1"}, {}, "nest.size.sw", "is not a setting. Did you mean nest.size?"),
        ({"nest.eg.sw": "1"}, {}, "nest.eg.sw", "is not a setting. Did you mean nest.egg?"),
        ({"nest.egg.sw": "x"}, {"NEST_EGG_SW_FILE": "y", "NEST_EGG_SW": "z"}, "nest.egg.sw", "are set; unset one"),
    ],
)
def test_a_variant_that_will_not_do_is_an_error(ini, environ, key, says):
    with pytest.raises(InvalidSettings) as caught:
        nest(ini, environ)
    (error,) = caught.value.errors
    assert error.key == key
    assert says in error.message


def test_a_secret_is_shown_to_nobody():
    section = pigeon({"pigeon.code": "s3cret", "pigeon.rings": "a b"})
    shown = [setting.display() for setting in section]
    assert shown == ["40", "roof", "coo", "a b", "********"]
    assert pigeon({})["code"].display() == ""


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0", "101", "-1", "4.5", "1e1", "forty", "\u0664", "0x10", "1_0", "9" * 30])
def test_a_number_is_ascii_digits_within_its_bounds(value):
    with pytest.raises(InvalidSettings, match="write a whole number from 1 to 100"):
        pigeon({"pigeon.speed": value})


MAKE = "python3 -c 'import secrets; print(secrets.token_urlsafe(64))'"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("app.public_url", "", "is required"),
        ("app.public_url", "orders.example.com", "write scheme and host"),
        ("app.public_url", "ftp://orders.example.com", "write scheme and host"),
        ("app.public_url", "https://orders.example.com/", "write scheme and host"),
        ("app.public_url", "https://orders.example.com/path", "write scheme and host"),
        ("app.public_url", "https://orders.example.com?x", "write scheme and host"),
        ("app.public_url", "https://jane@orders.example.com", "write scheme and host"),
        ("app.public_url", "https://orders.example.com:99999", "write scheme and host"),
        ("app.public_url", "https://[::1", "write scheme and host"),
        ("app.public_url", "https://", "write scheme and host"),
        ("sqlalchemy.url", "", "is required"),
        ("sqlalchemy.url", "orders.sqlite", "write sqlite:///"),
        ("sqlalchemy.url", "mysql://localhost/orders", "write sqlite:///"),
        ("sqlalchemy.url", "postgresql://localhost/orders", "postgresql+psycopg://"),
        ("sqlalchemy.url", "postgresql+psycopg://localhost:port/orders", "postgresql+psycopg://"),
        ("sqlalchemy.url", "sqlite://", "name a file"),
        ("sqlalchemy.url", "sqlite:///:memory:", "name a file"),
        ("sqlalchemy.pool_size", "0", "write a whole number from 1 to 1000"),
        ("jwt.private_key", "", MAKE),
        ("jwt.private_key", "{short}", MAKE),
        ("jwt.private_key", "x" * 64, MAKE),
        ("jwt.private_key", "change-me-{key}", MAKE),
        ("jwt.private_key", "YOUR_KEY{key}", MAKE),
        (
            "jwt.private_key",
            "k1:{key} k2:{short}",
            f"number 2 is shorter than the 64 bytes of HS512. Make one with: {MAKE}",
        ),
        ("jwt.private_key", "k1:{key} k2:change-me-{key}", "number 2 looks like a placeholder"),
        ("jwt.private_key", "k1:{key} k1:0{key}", "has two keys with the kid k1; name one of them otherwise"),
        ("jwt.private_key", "{key} {key}", "has two keys with the kid "),
        ("jwt.algorithm", "none", "HS512"),
        ("jwt.algorithm", "RS256", "HS512"),
        ("jwt.expiration", "0", "write a whole number"),
        ("auth.admins", "jane", "write e-mail addresses"),
        ("auth.clerks", "jane@shop.example shop.example", "shop.example: write e-mail addresses"),
        ("auth.default_role", "root", "none, viewer, clerk, admin"),
        ("api.max_body", "1", "write a whole number"),
        ("phone.default_region", "Kenya", "ISO 3166-1"),
        ("orders.currency", "KSH", "ISO 4217"),
        ("notifications.sms", "pigeon", "nothing is called 'pigeon'. Registered: none."),
        ("notifications.dispatcher", "celery", "Registered: embedded, worker."),
        ("notifications.lease", "1", "write a whole number"),
        ("notifications.quiet_hours", "21:00-08:00", "names no time zone. Write two times of day and a zone, such as"),
        ("notifications.quiet_hours", "21:00-21:00 UTC", "such as 21:00-08:00 Africa/Nairobi"),
        ("plugins", "no-such-plugin", "Installed: "),
    ],
)
def test_a_bad_value_is_refused_with_what_to_write(key, value, says):
    # a key that is random must not be in the name of a test
    told = wrong(**{key: value.format(key=KEY, short=KEY[:63])})
    assert list(told) == [key]
    assert says in told[key]


@pytest.mark.parametrize(("algorithm", "needed"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_key_is_as_long_as_the_hash_of_its_algorithm(algorithm, needed):
    settings = {"jwt.algorithm": algorithm}
    assert main({}, **{**GOOD, **settings, "jwt.private_key": KEY[:needed]})
    told = wrong(**settings, **{"jwt.private_key": KEY[: needed - 1]})
    assert told == {"jwt.private_key": f"is shorter than the {needed} bytes of {algorithm}. Make one with: {MAKE}"}


def test_no_key_is_repeated_in_what_is_said_of_it():
    assert KEY[:40] not in str(wrong(**{"jwt.private_key": KEY[:40]}))


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("api.max_bodies", "Did you mean api.max_body?"),
        ("jwt.key", "Did you mean jwt.private_key?"),
        ("auth.x", "Known: auth.admins, auth.clerks, auth.default_role, "),
        ("notifications.template.order_place", "Did you mean notifications.template.order_placed?"),
        ("notifications.template.order_confirm.sw", "Did you mean notifications.template.order_confirmed?"),
        ("notification.sms", "Did you mean notifications?"),
        ("sqlalchmy.url", "Did you mean sqlalchemy?"),
        ("plugin", "Did you mean plugins?"),
    ],
)
def test_a_misspelt_key_is_an_error_with_what_was_meant(key, says):
    told = wrong(**{key: "x"})
    assert list(told) == [key]
    assert says in told[key]


def test_what_is_no_setting_has_no_variable():
    with pytest.raises(InvalidSettings) as caught:
        main({}, **GOOD, **{"notifications.smss": "x", "sqlalchmy.url": "x", "phone.default_region": "x"})
    _, *lines = str(caught.value).splitlines()
    assert {line.strip().partition(": ")[0] for line in lines} == {
        "notifications.smss",
        "phone.default_region (variable PHONE_DEFAULT_REGION or PHONE_DEFAULT_REGION_FILE)",
        "sqlalchmy.url",
    }


def test_keys_of_others_are_left_alone():
    assert main({"here": "/srv", "port": "80"}, **GOOD, **{"pyramid.includes": "", "someone.elses": "x"})


def test_every_error_of_every_section_is_told_at_once_with_key_and_variable():
    with pytest.raises(InvalidSettings) as caught:
        main(
            {},
            **{
                "app.public_url": "x",
                "jwt.private_key": "short",
                "jwt.expiration": "x",
                "sqlalchmy.url": "x",
                "api.max": "x",
                "notifications.sms": "pigeon",
                "notifications.template.order_placed": "{{ oder.id }}",
            },
        )
    assert {error.key for error in caught.value.errors} == {
        "app.public_url",
        "sqlalchemy.url",
        "notifications.sms",
        "jwt.private_key",
        "jwt.expiration",
        "sqlalchmy.url",
        "api.max",
        "notifications.template.order_placed",
    }
    lines = str(caught.value).splitlines()
    assert lines[0] == "8 settings are wrong:"
    assert len(lines) == 9
    assert "  app.public_url (variable APP_PUBLIC_URL or APP_PUBLIC_URL_FILE): is 'x'; write" in str(caught.value)


def test_one_error_is_told_in_the_singular():
    with pytest.raises(InvalidSettings, match=r"^1 setting is wrong:\n  app\.public_url "):
        main({}, **{**GOOD, "app.public_url": "x"})


def test_settings_of_the_libraries_underneath_are_not_the_operators_to_change():
    settings = main({}, **GOOD, **{"handle_exceptions": "true", "tm.annotate_user": "true"}).registry.settings
    assert settings["handle_exceptions"] is False
    assert settings["tm.annotate_user"] is False


# -- the template of a message ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        "{{ order.id }} {{ order.item }} {{ order.amount_text }} {{ order.currency }} {{ order.reference }}",
        "{{ customer.username|upper }}{% if customer.reference %} ({{ customer['reference'] }}){% endif %}",
        "{% set who = customer.username %}Dear {{ who }}",
        "{{ order['id'] }}{{ customer.username|truncate(20) }}{% if order.reference is none %}!{% endif %}",
        "Thank you!",
        # no message
        "",
    ],
)
def test_a_template_may_name_what_it_is_given(template):
    assert main({}, **GOOD, **{"notifications.template.order_placed": template})


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ oder.id }}", "names oder,"),
        ("{{ order.totl }}", "names order.totl,"),
        ("{{ order['totl'] }}", "names order.totl,"),
        ("{% if order.reference %}{{ order.totl }}{% endif %}", "names order.totl,"),
        ("{% if false %}{{ totl }}{% else %}x{% endif %}", "names totl,"),
        ("{% set o = order %}{{ o.totl }}", "names o.totl, order,"),
        ("{{ order|attr('totl') }}", "No filter named 'attr'"),
        ("{% if order.id %}{{ order.item|attr('totl') }}{% endif %}", "names |attr,"),
        ("{% for x in [customer] %}{{ x.totl }}{% endfor %}", "names customer,"),
        ("{{ order[customer.username] }}", "names order[],"),
        ("{{ order.id|shout }}", "No filter named 'shout'"),
        ("{% if order.reference %}{{ order.id|shout }}{% endif %}", "names |shout,"),
        ("{{ order.id ", "is not a Jinja2 template"),
        ("{% include 'footer' %}", "is not a Jinja2 template"),
        ("{{ order.__class__ }}", "names order.__class__,"),
        # tests, in a branch too
        ("{{ order.id is eveen }}", "No test named 'eveen'"),
        ("{% if order.id is eveen %}x{% endif %}", "names is eveen,"),
        # what is below a fact, in a branch too
        ("{{ order.item.nope }}", "names order.item.nope,"),
        ("{{ order.item['nope'] }}", "names order.item.nope,"),
        ("{{ order.item[0] }}", "names order.item.0,"),
        ("{{ order.item[:3] }}", "names order.item[],"),
        ("{{ order.item.foo() }}", "names order.item.foo, order.item.foo(),"),
        ("{% if order.id == 7 %}{{ customer.username.nope }}{% endif %}", "names customer.username.nope,"),
        ("{% set who = customer.username %}{{ who.nope }}", "names who.nope,"),
        ("{{ (order.item ~ 'x').nope }}", "names (...).nope,"),
        ("{{ order() }}", "names order(),"),
        ("{% macro m() %}x{% endmacro %}{{ m() }}", "names m(),"),
        # what the values are not good for
        ("{{ order.item + 1 }}", "cannot be rendered: "),
        ("{{ order.item|truncate(1, 2, 3, 4, 5, 6) }}", "cannot be rendered: "),
        ("{{ 'No. ' + order.reference }}", "cannot be rendered where there is no reference: "),
        (
            "{% if customer.reference is none %}{{ 1 // 0 }}{% endif %}",
            "cannot be rendered where there is no reference",
        ),
    ],
)
def test_a_template_that_names_anything_else_refuses_to_start(template, says):
    told = wrong(**{"notifications.template.order_placed": template})
    assert says in told["notifications.template.order_placed"]


def test_an_empty_template_is_not_the_default():
    registry = main({}, **GOOD, **{"notifications.template.order_placed": ""}).registry
    assert registry.sections["notifications"].template_order_placed == ""
    assert "Blank: no SMS" in registry.sections["notifications"]["template.order_placed"].node.title
    assert main({}, **GOOD).registry.sections["notifications"].template_order_placed.startswith("Your order has been")


def test_a_lease_has_to_last_for_three_sends(tmp_path):
    inbox = str(tmp_path / "inbox.jsonl")
    devtools = {
        "devtools.inbox": inbox,
        "plugins": "devtools",
        "notifications.sms": "devtools",
        "devtools.timeout": "5",
    }
    told = wrong(**devtools, **{"notifications.lease": "14"})
    assert told == {
        "notifications.lease": "is 14, and devtools takes up to 5 seconds for a message. "
        "Make it 15 or more, or have devtools time out sooner (see its settings)."
    }
    assert main({}, **GOOD, **devtools, **{"notifications.lease": "15"})
