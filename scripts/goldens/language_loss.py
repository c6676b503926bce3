"""The cross-entropy of logits = hidden matrix^T and its gradients, out of PyTorch.

    .venv-goldens/bin/python scripts/goldens/language_loss.py tests/goldens/language-loss.safetensors
"""

import json
import sys

import torch
from safetensors.torch import save_file

ROWS, VOCABULARY, WIDTH = 37, 1300, 12


def main():
    torch.manual_seed(7)
    torch.set_num_threads(1)
    hidden = (2 * torch.randn(ROWS, WIDTH)).requires_grad_()
    matrix = torch.randn(VOCABULARY, WIDTH).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (ROWS,))
    logits = torch.nn.functional.linear(hidden, matrix)
    # In some rows the target is what the model says, as in one that has learnt.
    targets[::3] = logits[::3].argmax(dim=-1)
    loss = torch.nn.functional.cross_entropy(logits, targets)
    loss.backward()
    tensors = {
        "hidden": hidden.detach(),
        "matrix": matrix.detach(),
        "targets": targets,
        "mean": loss.detach().reshape(1),
        "correct": (logits.argmax(dim=-1) == targets).sum().reshape(1),
        "of_hidden": hidden.grad,
        "of_matrix": matrix.grad,
    }
    save_file(tensors, sys.argv[1], metadata={"versions": json.dumps({"torch": torch.__version__})})


if __name__ == "__main__":
    main()
