"""Constrained answers, which follow a JSON schema or a regular expression, or are a given choice.

`Constraints` converts a request to the text of a grammar and compiles that to a `Constraint`. After
each token, the constraint determines which tokens may come next, and the sampler masks the others.

    vocabulary.py   what the model's tokens can spell, and the nearest spelling of other texts
    patterns.py     regular expressions in the grammar's syntax
    references.py   JSON pointers, and the targets of a schema's references
    plain.py        one alternative of a schema, without references and combinators
    alternatives.py a schema as a list of such alternatives
    following.py    whether a listed value is valid
    literals.py, numbers.py, strings.py   the scalar values of a schema
    sizes.py        the smallest and largest number of tokens of a schema's values
    fitting.py      a schema all of whose values fit the token budget
    restoring.py    replaces spellings in the answer by the schema's literals
    compiling.py    compiles a grammar, with limits on time and memory
    pool.py         child processes that compile grammars first
    child.py        the program of these processes
    matching.py     the state of one answer in its grammar
    making.py       puts the parts together
"""

from issun.runtime.constraint.constraints import Constraints
from issun.runtime.constraint.matching import Constraint

__all__ = ["Constraint", "Constraints"]
