//! What a template makes: texts and lists that grow, at once or step by step, and the room that an honest one has.

use crate::{End, check, often, run};

#[test]
fn texts_that_grow() {
    let double = [
        "{% set ns.s = ns.s ~ ns.s %}",
        "{% set ns.s = ns.s + ns.s %}",
        "{% set ns.s = ns.s * 2 %}",
        "{% set ns.s = [ns.s, ns.s]|join %}",
        "{% set ns.s = ns.s.join(['a', ns.s]) %}",
        "{% set ns.s = ns.s|replace('x', 'xx') %}",
        "{% set ns.s = ns.s.replace('', 'x') %}",
        "{% set ns.s = [ns.s, ns.s]|string %}",
        "{% set ns.s = [ns.s, ns.s]|tojson %}",
        "{% set ns.s = ns.s|escape ~ '&&'|e %}{% set ns.s = ns.s|e %}",
        "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}",
        "{% set ns.s %}{% filter upper %}{{ ns.s }}{{ ns.s }}{% endfilter %}{% endset %}",
        "{% set ns.s = ns.s|indent(1000) ~ '\n\n' ~ ns.s %}",
        "{% set ns.s = ns.s ~ strftime_now('%A' * 100000) %}",
        "{{ ns.s }}{{ ns.s }}{% set ns.s = ns.s ~ 'xxxxxxxxxxxxxxxx' %}",
    ];
    for body in double {
        check(&often("{% set ns = namespace(s='x') %}", body), End::Limit);
    }
    let macro_text = "{% macro twice(s) %}{{ s }}{{ s }}{% endmacro %}{% set ns = namespace(s='x') %}";
    check(&often(macro_text, "{% set ns.s = twice(ns.s) %}"), End::Limit);
    check(&often("", &"x".repeat(60_000)), End::Limit);
}

#[test]
fn single_operations_that_are_large() {
    for text in [
        "{{ 'x' * 10 ** 9 }}",
        "{{ 'x' * 9223372036854775807 }}",
        "{{ [1] * 10 ** 9 }}",
        "{{ ['x' * 1000] * 10000000 }}",
        "{{ range(10 ** 9) }}",
        "{% for x in range(10 ** 18) %}{% endfor %}",
        "{{ range(0 - 2 ** 62, 2 ** 62, 1)|length }}",
        "{{ 'x\n' * 1000|indent(10 ** 9) }}",
        "{{ 'a\nb'|indent(10 ** 9) }}",
        "{{ [1]|tojson(indent=10 ** 9) }}",
        "{{ [1]|tojson(indent='x' * 1000000) }}{{ ([1] * 1000)|tojson(indent='x' * 1000000) }}",
        "{{ ([1] * 100000)|join('x' * 100000) }}",
        "{{ ('x' * 1000000)|list }}",
        "{{ ('x ' * 1000000).split() }}",
        "{{ ('\n' * 5000000).splitlines() }}",
        "{{ 2 ** 63 }}",
        "{{ 9999999999999999999999 }}",
        "{% set a = 'x' * 10000000 %}{{ a ~ a ~ a }}",
    ] {
        check(text, End::Limit);
    }
    for text in [
        "{{ 'x'|center(10 ** 9) }}",
        "{{ 'x'.center(10 ** 9) }}",
        "{{ 'x'.ljust(10 ** 9) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ 'x'.zfill(10 ** 9) }}",
        "{{ lipsum(10 ** 6) }}",
        "{{ [1]|batch(10 ** 9) }}",
        "{{ strftime_now('%') }}",
        "{{ strftime_now('%1000000000d') }}",
        "{{ range(1, 10, 0) }}",
        "{{ 1 % 0 }}{{ 1 // 0 }}",
        "{{ 'x'.split('') }}",
    ] {
        check(text, End::Refused);
    }
}

#[test]
fn long_conversations_have_room() {
    let text = "{{ bos_token }}{% for m in messages %}{{ '<' ~ m.role ~ '>' ~ m.content.strip()|trim|replace('a', 'b') ~ eos_token }}{% endfor %}";
    let content = "a lot to say. ".repeat(200_000);
    let (result, held) = run(text, &content);
    let text = result.unwrap();
    assert_eq!(text.len(), "<s><user></s>".len() + content.trim().len());
    // More than the text, so the count is one.
    assert!((text.len()..40 * content.len()).contains(&held), "{held}");
}
