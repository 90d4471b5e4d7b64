"""Templates, phrases and patterns of a user's own: any text is taken, or refused by one message that names the file."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.templates import SEEDS, check, check_text
from tests.helpers.strategies import TEXTS, damaged

NAMES = st.sampled_from(["trace", "question", "answer", "loop", "namespace", "range(3)", "self", "x"])
ATOMS = st.one_of(NAMES, st.sampled_from(["1", "0", "-7", "2.5", "'a'", "''", "[1, 2]", "{'a': 1}", "none", "true"]))
_FILTERS = "upper trim length first last list sort join replace('a','b') int float tojson indent wordwrap random"
FILTERS = st.sampled_from(_FILTERS.split(" "))
MEMBERS = st.sampled_from(["__class__", "format", "upper()", "a", "items()", "split()", "0"])


def _larger(inner):
    return st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "~", "and", "==", "<", "in"]), inner).map(" ".join),
        st.tuples(inner, FILTERS).map(" | ".join),
        st.tuples(inner, MEMBERS).map(lambda pair: f"({pair[0]}).{pair[1]}"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]})[{pair[1]}]"),
        inner.map("({})".format),
        inner.map("not {}".format),
    )


EXPRESSIONS = st.recursive(ATOMS, _larger, max_leaves=5)


# [e] stands for an expression, [t] and [u] for templates.
BLOCKS = st.sampled_from(
    [
        "{% if [e] %}[t]{% else %}[u]{% endif %}",
        "{% for x in [e] %}[t]{% endfor %}",
        "{% set x = [e] %}[t]",
        "{% macro f(x) %}[t]{% endmacro %}{{ f(1) }}",
        "{% filter upper %}[t]{% endfilter %}",
        "[t][u]",
    ]
)


def _nested(inner):
    def filled(parts):
        block, expression, one, other = parts
        return block.replace("[e]", expression).replace("[t]", one).replace("[u]", other)

    return st.tuples(BLOCKS, EXPRESSIONS, inner, inner).map(filled)


TEMPLATES = st.recursive(st.one_of(EXPRESSIONS.map(lambda e: f"{{{{ {e} }}}}"), TEXTS), _nested, max_leaves=4)


@given(TEMPLATES)
@settings(max_examples=200)
def test_any_template_is_rendered_or_one_message(template):
    check_text(0, template + "{{ trace }}")


@given(st.sampled_from(SEEDS).flatmap(damaged))
@settings(max_examples=200)
def test_a_damaged_text_file_is_taken_or_one_message(content):
    check(content)


@given(st.lists(TEXTS, max_size=5).map("\n".join))
def test_any_list_of_phrases_is_taken_or_one_message(text):
    check_text(1, text)


_PIECES = r"a b \w \b [a-z] [^x] (?:a|b) (a) (?P<n>a) (?=a) (?<!a) {name} * + ? {2,3} | . ^ $ \1 ( ) [ ] / \ ’"
PIECES = st.sampled_from(_PIECES.split(" "))


@given(st.lists(st.one_of(PIECES, TEXTS), max_size=8).map("".join), st.booleans())
@settings(max_examples=300)
def test_any_pattern_of_meta_thinking_is_taken_or_one_message(pattern, named):
    check_text(2, ("{name} = one|two\n" if named else "") + f"/{pattern}/\n")
