"""Answers that follow a JSON schema, a regular expression, or are one of some choices.

`Constraints` turns what is asked for into the text of a grammar, and that into a `Constraint`,
which says after each token which may come next; the sampler puts the others out.

    vocabulary.py   what the model's tokens can spell, and the nearest text that they can
    patterns.py     regular expressions as grammars write them
    references.py   places in a JSON schema, and where its references point
    alternatives.py a schema without references and combinations: plain alternatives
    sizes.py        how many tokens a schema's smallest and longest values need
    fitting.py      a schema whose every value fits the room that the answer has
    restoring.py    the literals that were asked for, in place of those that were spelled
    compiling.py    grammar text -> a compiled grammar, with limits
    pool.py         child processes that try grammars first
    child.py        what runs in them
    matching.py     one answer in its grammar
    making.py       the parts together
"""

from issun.runtime.constraint.making import Constraints
from issun.runtime.constraint.matching import Constraint

__all__ = ["Constraint", "Constraints"]
