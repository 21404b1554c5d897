import pytest
import torch

from training.head import score_labels, use_compact_head


def reference(hidden, weight, labels):
    log_p = torch.log_softmax(hidden @ weight.T, dim=1)
    return log_p[torch.arange(len(labels)), labels]


@pytest.mark.parametrize("frozen", [True, False])
def test_scores_and_gradients_equal_those_of_the_whole_softmax(frozen):
    torch.manual_seed(0)
    # More rows than one chunk holds, so that chunks meet.
    hidden = torch.randn(300, 16, requires_grad=True)
    weight = torch.randn(50, 16, requires_grad=not frozen)
    labels = torch.randint(0, 50, (300,))
    scale = torch.rand(300)
    scores = score_labels(hidden, weight, labels)
    torch.autograd.backward((scores.log_probs * scale).sum())
    ours = [hidden.grad.clone(), None if frozen else weight.grad.clone()]
    hidden.grad = weight.grad = None
    torch.autograd.backward((reference(hidden, weight, labels) * scale).sum())
    torch.testing.assert_close(scores.log_probs, reference(hidden, weight, labels))
    torch.testing.assert_close(ours[0], hidden.grad)
    if not frozen:
        torch.testing.assert_close(ours[1], weight.grad)


def test_top1_and_mean_logits_are_those_of_the_logits():
    torch.manual_seed(0)
    hidden, weight = torch.randn(20, 8), torch.randn(30, 8)
    labels = torch.randint(0, 30, (20,))
    scores = score_labels(hidden, weight, labels)
    logits = hidden @ weight.T
    assert scores.is_top1.tolist() == (logits.argmax(1) == labels).tolist()
    torch.testing.assert_close(scores.mean_logits, logits.mean(1))


def test_a_model_with_the_compact_head_gives_the_loss_of_its_own_forward(tiny_model):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = torch.randint(3, 200, (3, 12), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :5] = -100
    expected = model(input_ids=ids, labels=labels).loss
    use_compact_head(model)
    found = model(input_ids=ids, labels=labels, fused_lm_head=True)
    torch.testing.assert_close(found.loss, expected)
    assert found.label_mask.sum() == 3 * 7
    torch.testing.assert_close(model(input_ids=ids, labels=labels).loss, expected)
