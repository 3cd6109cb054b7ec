//! Work without end: loops, macros that call themselves, searches over and over.

use crate::{End, check, often};

#[test]
fn work_without_end() {
    let nested = "{% for a in range(2000) %}".repeat(6) + &"{% endfor %}".repeat(6);
    check(&nested, End::Limit);
    for text in [
        "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% macro f(n) %}{{ g(n) }}{% endmacro %}{% macro g(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        // Two calls at each of some levels: few levels, many calls.
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        // Searching, comparing and sorting what is large, over and over.
        "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set x = s ~ 'b' in s %}{% endfor %}",
        "{% set s = 'a' * 4000000 %}{% for i in range(100000) %}{% set x = 'b' in s %}{% endfor %}",
        "{% set s = 'a' * 4000000 %}{% for i in range(100000) %}{% set x = s.count('b') %}{% endfor %}",
        "{% set l = range(100000) %}{% for i in l %}{% set x = i in l %}{% endfor %}",
        "{% set l = range(20000)|list %}{% for i in l %}{% set x = l == range(20000) %}{% endfor %}",
        "{% set l = range(100000) %}{% for i in l %}{% set x = l|sort|first %}{% endfor %}",
        "{{ range(100000)|unique|length }}",
        "{% set ns = namespace(s='x' * 1000000) %}{% for i in range(100000) %}{% set x = ns.s|length %}{% endfor %}",
        "{% for i in range(100000) %}{% set x = range(100000)|map('string')|list %}{% endfor %}",
        "{% for i in range(100000) %}{% set x = messages[0].content.strip('abc' * 100000) %}{% endfor %}",
    ] {
        check(text, End::Limit);
    }
    let exponential = often(
        "{% set ns = namespace(l=[1]) %}",
        "{% if i < 40 %}{% set ns.l = [ns.l, ns.l] %}{% else %}{% set x = ns.l == ns.l %}{% endif %}",
    );
    check(&exponential, End::Limit);
    let printed =
        "{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}";
    check(printed, End::Limit);
    check(&printed.replace("{{ ns.l }}", "{{ ns.l|tojson }}"), End::Limit);
    check(&printed.replace("[ns.l, ns.l]", "{'a': ns.l, 'b': ns.l}"), End::Limit);
}
