"""Templates that want more than they may have: time, memory, stack."""

from __future__ import annotations

LONG = "'ab' * 500000"
HALF = "'a' * 300000 + 'b'"


def loops(body: str, n: int = 100_000, times: int = 1) -> str:
    return f"{{% for i in range({n}) %}}" * times + body + "{% endfor %}" * times


def repeated(expression: str) -> str:
    """The expression a hundred thousand times over large values."""
    setup = (
        f"{{% set long = {LONG} %}}{{% set half = {HALF} %}}{{% set many = range(100000) | list %}}"
        "{% set deep = namespace(x=1) %}"
    )
    return setup + loops("{% set _ = " + expression + " %}")


def doubled(start: str, step: str, then: str = "", n: int = 60) -> str:
    return f"{{% set x = {start} %}}" + f"{{% set x = {step} %}}" * n + then


BY_REPETITION = """
long.find('b' * 1000) | long.rfind('c') | half.rfind(half) | long.index('b') | long.count('ab')
long.count('aa') | long.split('a') | long.rsplit('b') | half.rsplit('c') | long.split()
long.partition('c') | long.rpartition('c') | half.rpartition('ba') | long.strip('ab')
long.lstrip('xyzab') | long.rstrip('ba') | long.strip(half) | long.replace('a', 'bb')
long.replace('', '-') | half.replace('aaaab', 'x') | long.title() | long.upper() | long.lower()
long.swapcase() | long.capitalize() | long.splitlines() | long.join(['a', 'b']) | ','.join(long)
long.center(900000) | long.ljust(2000000) | long.zfill(2000000) | long.expandtabs() | long.isalpha()
long.islower() | long.istitle() | long.isidentifier() | long.startswith(long) | long.endswith(half)
long.removeprefix(long) | long == long ~ '' | long < long ~ 'x' | 'ba' in long | half in long
long[::-1] | long[1:] | long ~ long | long + long | long * 2 | '%s' % long | '%2000000d' % 1
'%-999999s|' % 'x' | '{}'.format(long) | '{:>999999}'.format(1) | '{0}{0}'.format(long)
long | tojson | long | escape | long | urlencode | long | wordcount | long | indent | long | title
long | truncate(999999) | long | list | long | reverse | long | replace('b', 'c') | long | length
long | upper | long | trim('ab') | long | string | long | capitalize | long | first | long | last
many | sort | many | sort(reverse=true) | many | join | many | join(long) | many | sum | many | max
many | min | many | unique | many | map('string') | many | select('odd') | many | reject('in', many)
many | batch(3) | many | slice(3) | many | groupby('real') | many | list | many | tojson
many | tojson(indent=50) | many | string | many | reverse | many | length | 99999 in many
many == many | many + many | many * 2 | many[1:] | many[::-1] | many.index(99999) | many.count(1)
many < many | range(100000) | list | dict(a=many) | [many, many, many] | tojson | many | last
"x" * 1000000 | {"a": long} == {"a": long} | {long: 1} | [long] | unique | list | long | int
long | float | 7 ** 20 // 3 % 11 | long | center(3000000) | many | map('upper') | list
""".replace("\n", " | ").split(" | ")


def expressions() -> list[str]:
    """BY_REPETITION, with filters put together again."""
    names = set(
        "tojson escape urlencode wordcount indent title list reverse length upper string "
        "capitalize first last sort join sum max min unique float int".split()
    )
    found: list[str] = []
    for part in BY_REPETITION:
        part = part.strip()
        if not part:
            continue
        is_filter = part in names or part.split("(")[0] in names | {
            "truncate", "replace", "trim", "map", "select", "reject", "batch", "slice", "groupby",
            "center",
        }  # fmt: skip
        if found and is_filter and part.split("(")[0] == part.split("(")[0].strip("."):
            found[-1] += " | " + part
        else:
            found.append(part)
    return found


HOSTILE: dict[str, str] = {f"again: {e}": repeated(e) for e in expressions()}
HOSTILE |= {
    "range": "{% for i in range(10**9) %}x{% endfor %}",
    "nested loops": loops("", times=2),
    "loops of nothing": loops("", times=6),
    "loops over text": "{% for c in 'x' * 10**6 %}{% for d in 'y' * 10**6 %}"
    "{% endfor %}{% endfor %}",
    "conditions": loops("{% if 1 in [2, 3] and not i is odd or i == 7 %}{% endif %}", times=2),
    "variables": "".join(f"{{% set v{i} = {i} %}}" for i in range(9000)) + loops("{{ v0 }}"),
    "repeat": "{{ 'x' * 10**9 }}",
    "repeat twice": "{{ ('x' * 10**6) * 10**6 }}",
    "repeat most": "{{ 'x' * 9223372036854775807 }}",
    "repeat a pair": "{{ [1, 2] * 9223372036854775807 }}",
    "repeat a list": "{{ range(99999) | list * 100000 }}",
    "recursive macro": "{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "macro tree": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "macro defaults": "{% macro f(x=f()) %}{% endmacro %}{{ f() }}",
    "caller of callers": "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    + "{% call f() %}" * 40 + "x" + "{% endcall %}" * 40,
    "recursive loop": "{% for i in range(10) recursive %}{{ loop(range(10)) }}{% endfor %}",
    "loop of itself": "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "double by ~": doubled("'a' * 99", "x ~ x", "{{ x }}"),
    "double by +": doubled("'a' * 99", "x + x", "{{ x }}"),
    "double by join": doubled("'a' * 99", "[x, x] | join", "{{ x }}"),
    "double by format": doubled("'a' * 99", "'%s%s' % (x, x)", "{{ x }}"),
    "double by braces": doubled("'a' * 99", "'{0}{0}'.format(x)", "{{ x }}"),
    "double by replace": doubled("'ab' * 99", "x.replace('b', x)", "{{ x }}", 20),
    "double a list": doubled("[1]", "[x, x]", "{{ x == x }}"),
    "double a list's text": doubled("[1]", "[x, x]", "{{ x }}"),
    "double a list's json": doubled("[1]", "[x, x]", "{{ x | tojson(indent=9) }}"),
    "double a list's hash": doubled("(1,)", "(x, x)", "{{ {x: 1} }}"),
    "double a list's hash in a subscript": doubled("(1,)", "(x, x)", "{{ {}[x] }}{{ {1: 2}[x] }}"),
    "double a list's order": doubled("[1]", "[x, x]", "{{ x < x }}"),
    "double a dict": doubled("1", "{'a': x, 'b': x}", "{{ x | tojson }}"),
    "double a dict sorted": doubled("1", "{'a': x, 'b': x}", "{{ x | tojson(sort_keys=true) }}"),
    "double by escape": doubled("'&'", "(x | escape | forceescape)", "{{ x }}"),
    "double by urlencode": doubled("'%'", "x | urlencode", "{{ x }}"),
    "double by tojson": doubled("'\\\\'", "x | tojson", "{{ x }}"),
    "double by repr": doubled('"\'"', "[x, x] | string", "{{ x }}"),
    "double a block": "{% set x = 'a' * 99 %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "double in a loop": "{% set n = namespace(x='aa') %}"
    + loops("{% set n.x = n.x ~ n.x %}", 99),
    "deep value": "{% set n = namespace(x=1) %}" + loops("{% set n.x = [n.x] %}") + "{{ n.x }}",
    "deep dict": "{% set n = namespace(x=1) %}" + loops("{% set n.x = {1: n.x} %}"),
    "deep methods": "{% set n = namespace(x=[]) %}" + loops("{% set n.x = [n.x.count] %}"),
    "deep joiners": "{% set n = namespace(x='') %}" + loops("{% set n.x = joiner(n.x) %}"),
    "deep cyclers": "{% set n = namespace(x='') %}" + loops("{% set n.x = cycler(n.x) %}"),
    "deep namespaces": "{% set n = namespace(x='') %}" + loops("{% set n.x = namespace(x=n.x) %}"),
    "deep namespaces in lists": "{% set n = namespace(x='') %}"
    + loops("{% set n.x = namespace(x=[n.x]) %}"),
    "deep undefined": "{% set n = namespace(x='') %}" + loops("{% set n.x = {}[(n.x,)] %}"),
    "deep macros": "{% set n = namespace(x='') %}"
    + loops("{% set y = n.x %}{% macro f() %}{{ y }}{% endmacro %}{% set n.x = f %}"),
    "deep loops": "{% set n = namespace(x='') %}" + loops("{% set n.x = [loop, n.x] %}"),
    "a circle": "{% set n = namespace() %}{% set n.x = n %}{% set n.y = [n] %}{{ n.y == n.y }}"
    "{{ n.x.x.x.y | length }}{{ n.y }}",
    "a circle of loops": "{% set n = namespace() %}{% for i in [n, 1] recursive %}"
    "{% set n.l = loop %}{{ loop.changed(loop, n) }}{% endfor %}{% set l = n.l %}{{ n.l([1]) }}",
    "many namespaces": loops("{% set x = namespace(a=1) %}", 1000, 2),
    "many macros": loops("{% macro f() %}{% endmacro %}", 1000, 2),
    "many loops": loops(loops("", 1), 1000, 2),
    "big dict": "{% set n = namespace(x={}) %}" + loops("{% set n.x = dict(n.x, a=i) %}")
    + "{{ dict(range(100000) | list | map('string') | batch(2)) }}",
    "collisions": "{% set d = dict(range(0, 90000) | map('float') | batch(2)) %}"
    + loops("{% set _ = d[i] %}"),
    "ljust": "{{ 'x'.ljust(10**9) }}",
    "center": "{{ 'x' | center(10**9) }}",
    "center far": "{{ 'x'.center(9223372036854775807) }}",
    "indent": "{{ ('\\n' * 10**6) | indent(99999) }}",
    "indent with text": "{{ ('\\n' * 10**5) | indent('x' * 10**5, true, true) }}",
    "replace": "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
    "replace nothing": "{{ ('a' * 99999).replace('', 'b' * 99999) }}",
    "replace filter": "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}",
    "join": "{{ ['a' * 99999] * 99 | join('b' * 99999) }}",
    "join method": "{{ ('b' * 99999).join('a' * 99999) }}",
    "percent": "{{ '%999999999d' % 1 }}",
    "percent star": "{{ '%*d' % (999999999, 1) }}",
    "percent precision": "{{ '%.999999999f' % 1 }}{{ '%.99999999d' % 1 }}",
    "percent parts": "{{ ('%s' * 100000) % (1,) }}",
    "percent key": "{{ ('%(' + '(' * 1000000) % {} }}",
    "format": "{{ '{:999999999}'.format(1) }}",
    "format precision": "{{ '{:.999999999f}'.format(1.5) }}",
    "format fields": "{{ ('{0}' * 100000).format('x' * 100000) }}",
    "format nesting": "{{ ('{:' * 50000 + '}' * 50000).format(1) }}",
    "format filter": "{{ '%999999999d' | format(1) }}",
    "expandtabs": "{{ '\\t'.expandtabs(10**9) }}",
    "batch": "{{ [1] | batch(10**12, 'x') | list }}",
    "slices": "{{ [1] | slice(10**12) | list }}",
    "power": "{{ 10**(10**10) }}",
    "power of powers": "{{ 3 ** 4 ** 5 ** 6 ** 7 }}",
    "square": doubled("9", "x * x", "{{ x }}"),
    "big division": "{{ (10 ** 4000) // 7 % 11 }}",
    "factorial": "{% set n = namespace(x=1) %}" + loops("{% set n.x = n.x * (i + 1) %}"),
    "block set": "{% set x %}" + loops("a" * 999) + "{% endset %}",
    "output": loops("a" * 999),
    "output of text": "{% set x = 'a' * 99999 %}" + loops("{{ x }}"),
    "filters on filters": "{{ 'x'" + " | string" * 20000 + " }}",
    "tests on tests": "{{ " + "not " * 20000 + "1 }}",
    "attributes": "{{ a" + ".a" * 20000 + " }}",
    "calls": "{{ range" + "()" * 20000 + " }}",
    "subscripts": "{{ a" + "[0]" * 20000 + " }}",
    "signs": "{{ " + "-" * 20000 + "1 }}",
    "powers": "{{ 1" + " ** 1" * 20000 + " }}",
    "choices": "{{ " + "1 if 1 else " * 20000 + "1 }}",
    "sums of sums": "{{ " + "(1+" * 200 + "1" + ")" * 200 + "+1" * 290 + " }}",
    "lists in lists": "{{ " + "[" * 20000 + "]" * 20000 + " }}",
    "dicts in dicts": "{{ " + "{1:" * 9000 + "1" + "}" * 9000 + " }}",
    "ifs in ifs": "{% if 1 %}" * 9000 + "{% endif %}" * 9000,
    "elifs": "{% if 0 %}" + "{% elif 0 %}" * 9000 + "{% endif %}",
    "loops in loops": "{% for i in [1] %}" * 9000 + "{% endfor %}" * 9000,
    "macros in macros": "{% macro f() %}" * 9000 + "{% endmacro %}" * 9000,
    "targets": "{% set " + "(" * 9000 + "a" + ")" * 9000 + " = 1 %}",
    "deep": "{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}",
    "long expression": "{{ 1" + "+1" * 20000 + " }}",
    "long list": "{{ [" + "1," * 24000 + "] | length }}" + loops("{{ [" + "1," * 900 + "] }}"),
    "long text": "{{ '" + "x" * 1000000 + "' }}" + loops("{{ '" + "x" * 9000 + "'.upper() }}"),
    "large": "x" * ((1 << 20) + 1),
    "many parts": "{{ a }}" * 60000,
    "many comments": "{#" * 500000,
    "many raws": "{% raw %}" * 100000,
    "many braces": "{" * 1000000,
    "open text": "{{ '" * 200000,
    "attribute": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr filter": "{{ ''|attr('__class__')|attr('__mro__') }}{{ 1/0 }}",
    "globals": "{{ raise_exception.__globals__ }}{{ 1/0 }}",
    "getattr in format": "{{ '{0.__class__}'.format(1).x }}",
    "path": "{{ [{}] | map(attribute='__class__.__mro__') | list }}",
    "import": "{% import 'os' as os %}",
    "include": "{% include '/etc/passwd' %}",
    "change messages": "{{ messages.append(1) }}",
    "lipsum": "{{ lipsum(100000) }}",
    "random": "{{ [1] | random }}",
    "syntax": "{% for %}",
    "unknown filter": "{{ 1 | shell }}",
    "unknown function": "{{ open('x') }}",
    "strange object": "{{ namespace() }}",
    "time": "{{ strftime_now('%' * 999999) }}{{ strftime_now('%A' * 100000) }}",
    "smallest number": "{{ (-9223372036854775807 - 1) // -1 }}",
    "smallest number negated": "{{ -(-9223372036854775807 - 1) }}",
    "smallest number's rest": "{{ (-9223372036854775807 - 1) % -1 }}"
    "{{ [1][-9223372036854775807 - 1] }}"
    "{{ 'abc'[-9223372036854775807 - 1:9223372036854775807:9223372036854775807] }}"
    "{{ 'abc'[::-9223372036854775807 - 1] }}"
    "{{ range(-9223372036854775807, 9223372036854775807) }}",
    "sigma": "{% set x = 'Σ' * 20000 %}" + loops("{{ x.lower() }}", 99),
    "sigma among marks": "{{ ('Σ' + '\u0301' * 2000) * 200 | lower }}"
    "{{ (('Σ' + '\u0301' * 999) * 999).lower() }}",
}  # fmt: skip
