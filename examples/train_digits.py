"""Train with PyTorch's own loop: a compiled network is an ordinary torch.nn.Module.

python examples/train_digits.py [--epochs 6]
"""

from __future__ import annotations

import argparse

import torch
from digits import digits, shifted
from lenet5 import lenet5
from torch.nn.functional import nll_loss
from torch.utils.data import DataLoader, TensorDataset

import convloom as cl


def main() -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--epochs", type=int, default=6)
    epochs = parser.parse_args().epochs
    if epochs < 1:
        parser.error(f"--epochs is {epochs}; it must be at least 1")
    torch.manual_seed(0)
    (x, y), (x_held, y_held) = digits()
    batches = DataLoader(TensorDataset(*map(torch.from_numpy, shifted(x, y))), batch_size=32, shuffle=True)

    net = cl.compile(lenet5())
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * len(batches))
    for epoch in range(epochs):
        net.train()
        for images, labels in batches:
            log_probabilities = net(images).clamp_min(1e-7).log()
            loss = nll_loss(log_probabilities, labels.to(log_probabilities.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        net.eval()
        accuracy = (net(x_held).argmax(dim=1).cpu().numpy() == y_held).mean()
        print(f"epoch {epoch + 1}: {accuracy:.2%} of the held-out digits read")


if __name__ == "__main__":
    main()
