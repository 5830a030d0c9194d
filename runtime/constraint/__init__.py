"""Constrained answers, which follow a JSON schema or a regular expression, or are a given choice.

`Constraints` converts a request to the text of a grammar and compiles that to a `Constraint`. After
each token, the constraint determines which tokens may come next, and the sampler masks the others.

    vocabulary.py   what the model's tokens can spell, and the nearest spelling of other texts
    patterns.py     regular expressions in the grammar's syntax
    references.py   JSON pointers, and the targets of a schema's references
    flat_schema.py  one alternative of a schema, without references and combinators
    alternatives.py a schema as a list of such alternatives
    validation.py   whether a listed value is valid
    literals.py, numbers.py, strings.py   the scalar values of a schema
    sizes.py        the smallest and largest number of tokens of a schema's values
    budget.py       the bounds that are tried for a token budget
    fitting.py      a schema all of whose values fit the token budget
    restoring.py    replaces spellings in the answer by the schema's literals
    effort.py       limits on the work that one schema may cause
    compiling.py    compiles a grammar, with limits on time and memory
    pool.py         child processes that compile grammars first
    child.py        the program of these processes
    matching.py     `Constraint`, and the state of one answer in its grammar
    constraints.py  `Constraints`, which puts the parts together

Nothing is imported here: a model that answers freely needs none of it.
"""
