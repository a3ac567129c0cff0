"""Grammars of the native program: which texts they allow, byte by byte and token by token."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import examples, native, specdec_binary
from pairwise import in_turn

module = native("grammar")


def fits(schema, text):
    return module.Texts("schema", json.dumps(schema)).read(text)[1]


def check(schema, good, bad):
    texts = module.Texts("schema", json.dumps(schema))
    for text in good:
        assert texts.read(text)[1], text
    for text in bad:
        assert not texts.read(text)[1], text


VALUES = [
    "null", "true", "false", "0", "-1", "12.5", "1e5", "-0.25E-3",
    '""', '"a\\n\\u00e9\\"é😀"', "[]", "[1, 2]",
    "[[[]], {}]", "{}", '{"a": 1}', '{"a":{"b":[null]},"c":""}',
     '{\n  "a": 1,\n  "b": [\n    2\n  ]\n}',
]  # fmt: skip
NO_VALUES = [
    "", "nul", "01", "+1", "1.", ".5", "1e",
    "'a'", '"a', '"\n"', '"\\x"', '"\\ud800"', "[1,]", "[1 2]",
    '{"a"}', "{a: 1}", '{"a":1,}', "1 2", " 1", "1 ", "NaN", '"\x1f"', "[\t\n1]", "[\n\n1]",
]  # fmt: skip


def test_any_value():
    check({}, VALUES, NO_VALUES)
    check(True, VALUES, NO_VALUES)
    for text in VALUES:
        json.loads(text)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string"}, ['"a"', '""'], ["1", "null", "a"]),
        ({"type": ["integer", "null"]}, ["1", "-7", "null"], ["1.5", "true", "1e2", "-"]),
        ({"type": "string", "minLength": 1, "maxLength": 2}, ['"é"', '"\\n😀"'], ['""', '"abc"']),
        ({"enum": ["a", 1, None, {"b": [1, "c"]}]}, ['"a"', "1", "null", '{"b": [1,"c"]}'],
         ['"b"', "2", '{"b":[1]}']),
        ({"const": "é\"\\"}, ['"é\\"\\\\"'], ['"é"']),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
         ["[1]", "[1,2, 3]"], ["[]", "[1,2,3,4]", '["a"]', "[1,]"]),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}],
         "items": False},
         ["[]", "[1]", '[1,"a"]'], ['["a"]', '[1,"a",2]', "[1,2]"]),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2,
          "items": {"type": "null"}}, ['[1,"a"]', '[1,"a",null,null]'], ["[]", "[1]", '[1,"a",1]']),
        ({"type": "array", "maxItems": 0}, ["[]", "[ ]"], ["[1]"]),
        ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"],
          "additionalProperties": False},
         ['{"a":1}', '{"a": 1, "b": [2]}'], ["{}", '{"b":1}', '{"a":"x"}', '{"a":1,"c":2}',
                                             '{"b":1,"a":1}', '{"a":1,"a":1}']),
        ({"type": "object", "properties": {"a": {"type": "integer"}}},
         ["{}", '{"a":1}', '{"b":"x"}', '{"a":1,"aa":"x","c":2}', '{"":1}', '{"é":1}'],
         ['{"a":"x"}', '{"b":1,"a":1}', '{"a":1,"a":"x"}', '{"\\u0061":1}']),
        ({"type": "object", "properties": {"é": False, "èa": True}},
         ['{"èa":1}', '{"è":1}', '{"éa":1}', '{"z":1}'], ['{"é":1}']),
        ({"type": "object", "required": ["x"], "additionalProperties": {"type": "boolean"}},
         ['{"x":true}', '{"x":false,"y":true}'], ["{}", '{"y":true}', '{"x":1}']),
        ({"$ref": "#/$defs/tree", "$defs": {"tree": {
            "type": "object", "properties": {"v": {"type": "integer"},
            "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
            "required": ["v", "kids"], "additionalProperties": False}}},
         ['{"v":1,"kids":[]}', '{"v":1,"kids":[{"v":2,"kids":[{"v":3,"kids":[]}]}]}'],
         ['{"v":1}', '{"v":1,"kids":[1]}']),
        ({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 3}]}, ['"a"', "3"], ["2",
         "null"]),
        ({"type": "integer", "anyOf": [{"minimum": 3}, {"maximum": 0}]}, ["3", "0", "-4"], ["1",
         "2"]),
        ({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                    {"properties": {"b": {"type": "string"}, "a": {"maximum": 5}},
                     "required": ["b"]}]},
         ['{"a":5,"b":""}', '{"a":1,"b":"x","c":1}'], ['{"a":6,"b":""}', '{"a":1}']),
        ({"oneOf": [{"properties": {"k": {"const": "a"}, "x": {"type": "integer"}},
         "required": ["k", "x"],
                     "type": "object", "additionalProperties": False},
                    {"properties": {"k": {"const": "b"}}, "required": ["k"], "type": "object",
                     "additionalProperties": False}]},
         ['{"k":"a","x":1}', '{"k":"b"}'], ['{"k":"a"}', '{"k":"b","x":1}', '{"k":"c"}']),
        ({"oneOf": [{"type": "null"}, {"type": "string"}]}, ["null", '"x"'], ["1"]),
        ({"properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "null"}}, "type": "object",
          "required": ["a"]}, ['{"a":null}'], ['{"a":1}']),
        ({"type": "string", "format": "date"}, ['"2026-02-28"'], ['"2026-13-01"', '"2026-02-30"',
         '"x"']),
        ({"type": "string", "format": "date-time"}, ['"2026-02-28T23:59:59Z"',
         '"2026-01-01T00:00:00.5+01:00"'],
         ['"2026-02-28"', '"2026-02-28T24:00:00Z"']),
        ({"type": "string", "format": "uuid"}, ['"01234567-89ab-cdef-0123-456789abcdef"'],
         ['"0123"']),
        ({"type": "string", "format": "ipv4"}, ['"127.0.0.1"'], ['"256.0.0.1"', '"1.2.3"']),
        ({"type": "object", "properties": {"a": False}}, ["{}", '{"b":1}'], ['{"a":1}']),
        ({"anyOf": [False, {"type": "null"}]}, ["null"], ["1"]),
        ({"minLength": 2}, ['"ab"', "1", "null"], ['"a"']),
        ({"type": "object", "properties": {'a"b': {"type": "null"}}, "additionalProperties": False},
         ['{"a\\"b":null}'], ['{"a":null}']),
    ],
)  # fmt: skip
def test_schemas(schema, good, bad):
    check(schema, good, bad)
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema)
    for text in good:
        assert validator.is_valid(json.loads(text)), text


@pytest.mark.parametrize("whole", [True, False])
def test_numbers_within_bounds(whole):
    """Every bound against every number of a list."""
    chance = random.Random(1)
    numbers = [0, 1, 2, 9, 10, 11, 19, 99, 100, 101, 120, 999, 1000, 12345]
    numbers += [chance.randrange(10**6) for _ in range(10)]
    numbers = sorted({*numbers, *(-n for n in numbers)})
    reals = [
        x + d for x in (-101, -10, -2, -1, 0, 1, 9, 99) for d in (0.05, 0.5, 0.25, 0.125, 0.999)
    ]
    bounds = (
        numbers if whole else [-100.5, -10, -1.25, -1, -0.5, 0, 0.05, 0.5, 1, 1.125, 9.5, 10, 100]
    )
    texts = [str(n) for n in numbers] + (
        [] if whole else [format(x, ".6f").rstrip("0") for x in reals]
    )
    if not whole:
        texts += ["0.50", "1.0", "10.00", "0.0", "-1.250", "9.500", "100.0000"]
    for low, high in itertools.product([None, *bounds], repeat=2):
        if chance.random() > 0.35:
            continue
        for strict in (False, True):
            schema = {"type": "integer" if whole else "number"}
            if low is not None:
                schema["exclusiveMinimum" if strict else "minimum"] = low
            if high is not None:
                schema["exclusiveMaximum" if strict else "maximum"] = high
            if low is None and high is None:
                continue
            text_of = {t: float(t) for t in texts}
            right = {
                t for t, x in text_of.items()
                if (low is None or (x > low if strict else x >= low))
                and (high is None or (x < high if strict else x <= high))
                and not (t.startswith("-") and x == 0)
            }  # fmt: skip
            try:
                reader = module.Texts("schema", json.dumps(schema))
            except module.NativeError as error:
                if right or "no text matches" not in str(error):
                    raise
                continue
            found = {t for t in texts if reader.read(t)[1]}
            assert found == right, (schema, sorted(found ^ right))


PATTERNS = [
    (r"^a+b?$", ["a", "aab", "b", "aabb", ""]),
    (r"b", ["b", "abc", "ac", ""]),
    (r"^(foo|ba[rz])(-\d{2,3})?$", ["foo", "bar-12", "baz-1234", "baz-123", "fo"]),
    (r"^[^a-c\"\\]*$", ["", "xyz", "b", '"', "\\", "é\n"]),
    (r"^\w+@\w+\.(com|org)$", ["a@b.com", "a@b.net", "@b.com"]),
    (r"^.$", ["a", "é", "😀", "\n", "ab"]),
    (r"^\s\S$", [" a", "\ta", "a ", "\n\u00a0"]),
    (r"^\s$", ["\u3000", "\u2009", "\ufeff", "a"]),
    (r"^a|b$", ["ax", "xb", "xa", "b"]),
    (r"^(?:a{2}){1,2}$", ["aa", "aaaa", "a", "aaa"]),
    ("^[\u00e0-\u0105\U0001f600-\U0001f64f]$", ["é", "ą", "Ć", "😀", "🤐", "a"]),
    (r"^\u0041\x42\-$", ["AB-", "A"]),
]


@pytest.mark.parametrize(("pattern", "texts"), PATTERNS)
def test_patterns(pattern, texts):
    reader = module.Texts("schema", json.dumps({"type": "string", "pattern": pattern}))
    for text in texts:
        right = re.search(pattern, text) is not None
        assert reader.read(json.dumps(text, ensure_ascii=False))[1] == right, text


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "a schema is an object, true or false, not array"),
        ('{"type": "text"}', 'at #: "type" "text" is none of'),
        ('{"properties": {"a": {"type": 1}}}', 'at #/properties/a: "type" 1'),
        ('{"uniqueItems": true}', '"uniqueItems" cannot be followed'),
        ('{"not": {}}', '"not" cannot be followed'),
        ('{"if": {}}', '"if" cannot be followed'),
        ('{"multipleOf": 2}', '"multipleOf" cannot be followed'),
        ('{"$ref": "#"}', "refers to itself"),
        ('{"$ref": "#/$defs/a"}', "there is no such part"),
        ('{"$ref": "http://x/y"}', "can only name a part of the schema itself"),
        ('{"anyOf": []}', '"anyOf" must be a list'),
        ('{"minimum": "a"}', '"minimum" must be a number, got string'),
        ('{"minLength": -1}', "0 or more"),
        ('{"maxLength": 100000}', "is followed up to 65536"),
        ('{"type": "string", "pattern": "(?=a)"}', "looking around cannot be followed"),
        ('{"type": "string", "pattern": "a\\\\b"}', "this escape cannot be followed"),
        ('{"type": "string", "pattern": "\\\\x4\\u0011"}', "hexadecimal digits expected"),
        ('{"type": "string", "pattern": "["}', "'[' without ']'"),
        ('{"type": "string", "pattern": "("}', "'(' without ')'"),
        ('{"type": "string", "pattern": "a{2,1}"}', "ends before it begins"),
        ('{"type": "string", "format": "email"}', '"format" "email" cannot be followed'),
        ('{"oneOf": [{"type": "integer"}, {"type": "number"}]}', "a value may fit both 0 and 1"),
        ('{"oneOf": [{"type": "object"}, {"type": "object"}]}', "a value may fit both 0 and 1"),
        ("false", "no text matches"),
        ('{"type": "integer", "minimum": 2, "maximum": 1}', "no text matches"),
        ('{"allOf": [{"type": "string"}, {"type": "null"}]}', "no text matches"),
        ('{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}',
         "no text matches"),
        ('{"enum": []}', "no text matches"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_told(schema, message):
    with pytest.raises(module.NativeError, match=re.escape(message)):
        module.Texts("schema", schema)


def test_the_largest_ones_are_refused_in_time():
    long = {"type": "array", "minItems": 60000, "maxItems": 65000}
    module.Texts("schema", json.dumps(long | {"items": long}))
    deep = '{"items":' * 75 + "{}" + "}" * 75
    module.Texts("schema", deep)
    many = json.dumps({"allOf": [{"anyOf": [{"minimum": i}, {"maximum": i}]} for i in range(20)]})
    with pytest.raises(module.NativeError, match="combinations"):
        module.Texts("schema", many)
    nested = "a"
    for _ in range(6):
        nested = f"(?:{nested}){{1000}}"
    with pytest.raises(module.NativeError, match="too large"):
        module.Texts("schema", json.dumps({"type": "string", "pattern": nested}))
    wide = {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(500)}}
    reader = module.Texts("schema", json.dumps(wide))
    assert reader.read('{"p3": 1, "p499": 2, "q": 3}')[1]


GBNF = r"""
# a list
root  ::= "[" ws (item ("," ws item)*)? "]" ws
item  ::= number | word |
          "\"" [^"\\\x00-\x1f]{1,3} "\""
number ::= "-"? [0-9]+ # digits
word ::= ("a"? "b"?)* "é" .
ws ::= [ \t\n]*
"""


def test_gbnf():
    reader = module.Texts("gbnf", GBNF)
    for text, right in [
        ("[]", True), ("[ 1,-20,\n3]", True), ("[abéx]", True),
        ("[é😀,1]", True), ('["é]a"]', True),
        ("[1,]", False), ("[-]", False), ('["abcd"]', False), ("[é]x", False), ("", False),
    ]:  # fmt: skip
        assert reader.read(text)[1] == right, text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "no rule 'root'"),
        ("a ::= b", "rule 'b' is used but not defined"),
        ("root ::= root \"a\" | \"a\"", "left recursion"),
        ("root ::= a? root \"a\" | \"c\"\na ::= \"b\"", "left recursion"),
        ("root ::= \"a\" root", "no text matches"),
        ("root ::= (\"a\"", "line 1, column 14: ')' expected"),
        ("root ::= \"a", "'\"' expected"),
        ("root ::= [a", "']' expected"),
        ("root = \"a\"", "'::=' expected"),
        ("root ::= \"a\"\nroot ::= \"b\"", "defined twice"),
        ("root ::= \"\\q\"", "line 1, column 12"),
        ("root ::= \"a\"{3,2}", "ends before it begins"),
        ("root ::= \"a\"{99999}", "counts end at"),
        ("root ::= \"a\" )", "the end of the line expected"),
        ("root ::= *", "expected"),
        ("root ::= \"\\ud800\"", "no character has this code"),
    ],
)  # fmt: skip
def test_gbnf_errors_say_where(source, message):
    with pytest.raises(module.NativeError, match=re.escape(message)):
        module.Texts("gbnf", source)


@pytest.mark.parametrize(
    "wrong",
    [b"\xff\xff\xff\xff", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82", b"\x80",
     b"\xc3\x28"],
)  # fmt: skip
def test_what_is_no_utf8_is_refused_where_it_stands(wrong):
    """Found by the fuzzer: a character beyond the last one was written with a form that is none."""
    with pytest.raises(module.NativeError, match="first at byte 11: expected text in UTF-8"):
        module.Texts("gbnf", b'root ::= "a' + wrong + b'b"')
    with pytest.raises(module.NativeError, match=r"json schema has .* first at byte 12"):
        module.Texts("schema", b'{"pattern":"' + wrong + b'"}')


def test_half_a_surrogate_pair_is_no_pattern():
    with pytest.raises(module.NativeError, match="half of a surrogate pair is no character"):
        module.Texts("schema", r'{"type": "string", "pattern": "^a\ud83d"}')
    assert module.Texts("schema", r'{"pattern": "^\ud83d\ude00"}').read('"😀"')[1]


def test_random_texts_of_a_schema_are_valid():
    """Whatever way is taken through the automaton, what ends is JSON of the schema."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 5},
            "n": {"type": "number", "exclusiveMinimum": -2.5, "maximum": 130},
            "tags": {"type": "array", "items": {"enum": ["a", "b", 3]}, "maxItems": 3},
            "when": {"type": "string", "format": "date"},
            "more": {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
        },
        "required": ["n", "more"],
    }
    validator = jsonschema.Draft202012Validator(schema)
    reader = module.Texts("schema", json.dumps(schema))
    chance = random.Random(3)
    ended = 0
    for _ in range(300):
        text = b""
        while len(text) < 400:
            following = reader.following(text)
            if not following:
                break
            # Towards the end: quotes, brackets and what is no digit.
            closing = [b for b in following if chr(b) in '"]}' or chr(b) in "nul"]
            text += bytes(
                [chance.choice(closing if closing and chance.random() < 0.6 else following)]
            )
        if reader.read(text)[1]:
            ended += 1
            assert validator.is_valid(json.loads(text)), text
    assert ended > 50


SOME_SCALARS = st.sampled_from([None, True, 0, 1, -3, 2.5, 10, "a", 'b"', "é", ""])
SOME_VALUES = st.recursive(
    SOME_SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    ),
    max_leaves=4,
)
SOME_BOUNDS = st.dictionaries(
    st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]),
    st.sampled_from([0, 1, -1, 2.5, -7.25, 10, 100.125]),
    max_size=3,
)
SOME_PATTERNS = ("^a", "b$", "[0-9]{2}", "^(x|y)+$", '^["\\\\]$', "^\\s*$", "^[^a-z]$")
SOME_NAMES = st.sampled_from(["a", "b", "aa", "é", 'a"b', ""])


def schema_of(**keys):
    """Of the values of keywords, some of them strategies."""
    drawn = {k: v if isinstance(v, st.SearchStrategy) else st.just(v) for k, v in keys.items()}
    return st.fixed_dictionaries(drawn)


def inner_schemas(inner):
    pairs = st.lists(inner, min_size=2, max_size=2)
    return st.one_of(
        schema_of(
            type="object",
            properties=st.dictionaries(SOME_NAMES, inner, max_size=3),
            required=st.lists(st.sampled_from(["a", "b", "c"]), max_size=2, unique=True),
            additionalProperties=st.one_of(st.booleans(), inner),
        ),
        schema_of(
            type="array",
            items=inner,
            prefixItems=st.lists(inner, max_size=2),
            minItems=st.integers(0, 2),
            maxItems=st.sampled_from([1, 3]),
        ),
        st.builds(
            lambda word, parts: {word: parts}, st.sampled_from(["anyOf", "oneOf", "allOf"]), pairs
        ),
        schema_of(allOf=pairs, anyOf=pairs),
    )


SCHEMAS = st.recursive(
    st.one_of(
        st.sampled_from([True, False]),
        schema_of(type=st.sampled_from(["null", "boolean", "integer", "number", "string"])),
        st.builds(
            lambda kind, bounds: {"type": kind, **bounds},
            st.sampled_from(["integer", "number"]),
            SOME_BOUNDS,
        ),
        schema_of(type="string", minLength=st.integers(0, 1), maxLength=st.sampled_from([0, 2])),
        schema_of(enum=st.lists(SOME_VALUES, min_size=2, max_size=2)),
        schema_of(type="string", pattern=st.sampled_from(SOME_PATTERNS)),
    ),
    inner_schemas,
    max_leaves=6,
)


def written(reader, chance):
    """A text that a reader allows byte by byte; it may be too long to end."""
    text = b""
    while len(text) < 150:
        following = reader.following(text)
        if not following:
            break
        closing = [b for b in following if chr(b) in '"]}nul']
        most = closing if closing and chance.random() < 0.6 else following
        text += bytes([chance.choice(most)])
    return text


@pytest.mark.hypothesis
def test_random_schemas():
    """What is written fits; there is no way into a trap; what fits everything can be written."""
    jsonschema = pytest.importorskip("jsonschema")
    counts = {"texts": 0, "values": 0}

    @given(SCHEMAS, st.lists(SOME_VALUES, max_size=10), st.integers(0, 2**32))
    @settings(max_examples=examples(50))
    def check(schema, values, seed):
        validator = jsonschema.Draft202012Validator(schema)
        try:
            reader = module.Texts("schema", json.dumps(schema))
        except module.NativeError as error:
            if "no text matches" in str(error):
                assert not any(map(validator.is_valid, values))
            return
        chance = random.Random(seed)
        for _ in range(4):
            text = written(reader, chance)
            if reader.read(text)[1]:
                counts["texts"] += 1
                assert validator.is_valid(json.loads(text)), text
            else:
                assert reader.following(text), ("a trap", text)
        for value in (None, True, 0, 1, -3, 2.5, 10, "a", 'b"', "é", "", []):
            if validator.is_valid(value):
                counts["values"] += 1
                assert reader.read(json.dumps(value, ensure_ascii=False))[1], value

    check()
    assert counts["texts"] > 25
    assert counts["values"] > 25


TOKENS = ["{", "}", '"', '"a', 'a"', '":', ":", ",", '","', "1", "23", "é", "\xc3", "\xa9",
 "true", "tr", "ue", "", "",
          " ", "\n", "[", "]", "[]", "{}", '{"', '"b"', "b", "-"]  # fmt: skip


def token_bytes():
    return [
        t.encode("latin-1") if len(t) == 1 and ord(t) > 127 and t != "é" else t.encode()
        for t in TOKENS
    ]


def test_masks_are_what_the_texts_allow():
    data = token_bytes()
    ends = [17]
    schema = json.dumps({
        "type": "object", "additionalProperties": False, "required": ["a"],
        "properties": {"a": {"type": ["integer", "boolean"]}, "b": {"type": "string",
         "maxLength": 2}},
    })  # fmt: skip
    constraint = module.Constraint("schema", schema, module.Vocabulary(data, ends))
    texts = module.Texts("schema", schema)
    chance = random.Random(5)
    for _ in range(60):
        path = []
        for _ in range(12):
            before = b"".join(data[t] for t in path)
            mask = constraint.allow(path, len(data))
            right = [bool(d) and texts.read(before + d)[0] == len(before + d) for d in data]
            right[17] = texts.read(before)[1]
            right[18] = False
            assert mask == right, before
            n = constraint.n_allowed(path[:-2], [*path[-2:], 8]) if len(path) > 2 else 0
            assert n == 0 or n >= 2
            choices = [t for t, allowed in enumerate(mask) if allowed and t != 17]
            if not choices:
                break
            path.append(chance.choice(choices))
    # A text that is not allowed has no answer.
    assert all(constraint.allow([1], len(data)))
    assert constraint.n_allowed([1], [0]) == 0
    assert constraint.forced([1]) == []


def test_what_is_fixed_is_forced():
    data = [bytes([i]) for i in range(256)] + [b'{"', b"name", b'":', b"", b"nam"]
    schema = json.dumps({
        "type": "object", "properties": {"name": {"type": "null"}}, "required": ["name"],
        "additionalProperties": False,
    })  # fmt: skip
    constraint = module.Constraint("schema", schema, module.Vocabulary(data, [259]))
    start = list(b"{")
    assert constraint.forced(start) == []  # a space may follow
    assert constraint.forced([256]) == [257, 258][:1]
    assert constraint.n_allowed([256], [257, 258, 0]) == 2
    assert constraint.n_allowed(list(b'{"name":null}'), [259, 0]) == 1


PERSON = {
    "type": "object", "additionalProperties": False, "required": ["a", "b", "c"],
    "properties": {
        "a": {"type": "integer", "minimum": -20, "maximum": 3000},
        "b": {"enum": ["x", "y z"]},
        "c": {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 4},
    },
}  # fmt: skip


def command(*arguments, code=0):
    done = subprocess.run(
        [specdec_binary(), "generate", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize(
    ("drafter", "temperature"),
    in_turn(["none", "ngram", "suffix", "model", "auto", "ngram,model"], [0, 1.5]),
)
def test_the_command_writes_what_the_schema_allows(
    tiny_path, tiny_draft_path, drafter, temperature
):
    def call(*more):
        return command(
            "-m", tiny_path, "-p", "the cat in the hat", "-n", 400, "--temp", temperature, "-s", 5,
            "-j", json.dumps(PERSON), "--json", *more,
        )  # fmt: skip

    draft = ("-md", tiny_draft_path) if drafter in ("model", "auto", "ngram,model") else ()
    found = json.loads(call("--drafter", drafter, *draft, "--check").stdout)
    assert found["check"]["identical"]
    assert found["finish_reason"] == "stop"
    assert fits(PERSON, found["text"])
    value = json.loads(found["text"])
    assert list(value) == ["a", "b", "c"]
    assert -20 <= value["a"] <= 3000
    plain = json.loads(call("--drafter", "none").stdout)
    assert found["token_ids"] == plain["token_ids"]


def test_the_command_reads_files_and_tells_what_is_wrong(tiny_path, tmp_path):
    file = tmp_path / "list.gbnf"
    file.write_text('root ::= "[" [0-9]{2} ("," [0-9]{2}){2} "]"\n')
    start = ("-m", tiny_path, "-p", "ab", "-n", "40", "-q")
    assert re.fullmatch(r"\[\d\d,\d\d,\d\d\]\n", command(*start, "--grammar-file", file).stdout)
    told = command(*start, "-j", '{"not": {}}', code=2).stderr
    assert '"not" cannot be followed' in told
    assert "line 1" in command(*start, "--grammar", "root ::= (", code=2).stderr
    told = command(*start, "-j", "{}", "--grammar-file", file, code=2).stderr
    assert "give one of" in told
    command(*start, "-jf", tmp_path / "none.json", code=3)


def test_texts_of_the_command_are_those_that_llguidance_allows(tiny, tiny_path):
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    import specdec_native as sd

    grammar = sd.Grammar.json_schema(PERSON)
    for seed in range(6):
        done = command(
            "-m", tiny_path, "-p", "ab", "-n", 120, "--temp", 1.5, "-s", seed, "-q", "-j",
            json.dumps(PERSON), "--json",
        )  # fmt: skip
        assert grammar.matches(tiny, json.loads(done.stdout)["text"])
