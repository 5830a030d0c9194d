"""Your own sampler: change the logits before each token is drawn.

A processor gets the ids so far (prompt and answer) and the logits of the next token: a float32
vector with one value for each id of the vocabulary. It gives the logits to draw from.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from issun.runtime import Model, SamplingParams

Logits = NDArray[np.float32]


def epsilon(ids: Sequence[int], logits: Logits) -> Logits:
    """Epsilon sampling: leave out every token whose probability is below 2 %."""
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    # Minus infinity is how an id is left out.
    return np.where(probabilities < 0.02, np.float32(-np.inf), logits)


def main() -> None:
    with Model.load() as model:
        prompt = model.prompt("日本で一番高い山は?")
        # At this temperature any token may be drawn. Processors run before the temperature counts,
        # in their order, so that `epsilon` sees what the model itself thinks.
        for name, processors in (("without", ()), ("with", (epsilon,))):
            for seed in (1, 2):
                params = SamplingParams(temperature=3, seed=seed, processors=processors)
                print(f"{name}: {model.generate(prompt, params).text}")


if __name__ == "__main__":
    main()
