"""Training of the embedded model at a small scale."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

from issun.runtime.demonstration import EMBEDDED
from issun.training.embedded.corpus import corpus
from issun.training.embedded.pretrain import Encoder, PretrainOptions, batches, pretrain, record
from issun.training.embedded.vocabulary import train_vocabulary

pytestmark = pytest.mark.parity

SMALL = PretrainOptions(
    n_layer=1,
    n_embd=64,
    n_head=2,
    steps=60,
    chat_steps=10,
    batch_tokens=1024,
    warmup_steps=4,
    learning_rate=6e-3,
)
VOCABULARY = EMBEDDED / "spiece.model"


@pytest.fixture(scope="module")
def torch(ref: ModuleType) -> ModuleType:
    return ref.torch


def test_orthogonalize(torch: ModuleType) -> None:
    """All singular values are near 1, and the singular vectors are unchanged."""
    from issun.training.embedded.muon import orthogonalize

    torch.manual_seed(0)
    matrices = torch.randn(3, 16, 48)
    u, _, v = torch.linalg.svd(orthogonalize(matrices), full_matrices=False)
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.6
    assert values.max() < 1.3
    whole = torch.linalg.svd(matrices, full_matrices=False)
    assert torch.allclose(u @ v, whole.U @ whole.Vh, atol=1e-3)


def test_attention_equals_that_of_transformers(torch: ModuleType) -> None:
    from issun.training.embedded.pretrain import _model

    torch.manual_seed(0)
    model = _model(SMALL).eval()
    ids = torch.randint(0, SMALL.vocab_size, (3, 40))
    with torch.no_grad():
        own = model(ids).logits
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(ids).logits
        model.set_attn_implementation("sdpa")
        assert torch.allclose(own, model(ids).logits, atol=1e-5)
    assert torch.allclose(own, mixed.float(), atol=0.05)
    assert not torch.equal(own, mixed.float())


def test_training_learns_and_resumes(torch: ModuleType, tmp_path: Path) -> None:
    losses: list[tuple[int, float]] = []
    first = pretrain(
        VOCABULARY, SMALL, tmp_path / "state.pt", lambda step, loss: losses.append((step, loss))
    )
    assert [step for step, _ in losses] == [60, 70]
    again = pretrain(VOCABULARY, SMALL, tmp_path / "state.pt", lambda step, loss: None)
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    ids, learnt = next(batches(Encoder(VOCABULARY, SMALL), SMALL))
    with torch.no_grad():
        logits = first(torch.from_numpy(ids)).logits[:, :-1][torch.from_numpy(learnt[:, 1:])]
    wanted = torch.from_numpy(ids[:, 1:][learnt[:, 1:]])
    assert torch.nn.functional.cross_entropy(logits, wanted) < 6  # of ln 4,736 = 8.5


@pytest.mark.slow
def test_the_tokenizer_is_reproducible(tmp_path: Path) -> None:
    paths = [tmp_path / "a.model", tmp_path / "b.model"]
    for path in paths:
        train_vocabulary(map(record, islice(corpus(7), 20_000)), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
