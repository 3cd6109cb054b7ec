//! Files, other templates and the inside of objects are out of reach.

use crate::{End, check};

#[test]
fn what_lies_outside_is_out_of_reach() {
    for text in [
        "{% include 'secret' %}",
        "{% include ['a', 'b'] ignore missing %}",
        "{% extends 'secret' %}",
        "{% import 'secret' as s %}",
        "{% from 'secret' import s %}",
        "{% block a %}{{ self.a() }}{% endblock %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ raise_exception.__globals__['os'] }}",
        "{{ ''|attr('__class__')|attr('mro') }}",
        "{{ self.__init__ }}",
        "{{ open('/etc/passwd').read() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{% set messages[0].role = 'system' %}",
        "{{ loop.cycle() }}",
        "{% for i in [1] %}{{ loop.cycle() }}{% endfor %}",
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% macro f() %}{% macro g() %}{% endmacro %}{% endmacro %}{{ f() }}",
        "{% macro f() %}{% endmacro %}{% call f() %}x{% endcall %}",
        "{% autoescape true %}{% endautoescape %}",
        "{{ range(*[1]) }}",
        "{{ dict(**{'a': 1}) }}",
        "{% debug %}",
        "{{ 'x'.encode() }}",
    ] {
        check(text, End::Refused);
    }
}
