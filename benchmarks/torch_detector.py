"""The same detector in PyTorch, for comparison, written as is usual there.

Xception (Chollet 2017) with the squeeze, latent vector, classifier and decoder of
`jdfd_keras.model.network`; trained with SGD of two parameter groups.
"""

import time

import numpy as np
import torch
from torch import nn


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Block(nn.Module):
    """Separable convolutions with a residual connection."""

    def __init__(self, widths: list[int], stride: int, starts_with_relu: bool):
        super().__init__()
        layers = []
        for index, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
            if index or starts_with_relu:
                layers.append(nn.ReLU())
            layers.append(_separable(inputs, outputs))
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, 1))
        self.main = nn.Sequential(*layers)
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(widths[0], widths[-1], 1, stride, bias=False), nn.BatchNorm2d(widths[-1])
            )

    def forward(self, x):
        """Compute the output of the block; both are [n, channels, height, width]."""
        return self.main(x) + self.shortcut(x)


class Detector(nn.Module):
    """Encoder, classifier and decoder."""

    def __init__(self, size: int = 299, latent_dim: int = 256):
        super().__init__()
        self.size, self.grid = size, -(-size // 32)
        self.encoder = nn.Sequential(
            *(nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
            Block([64, 128, 128], 2, False),
            Block([128, 256, 256], 2, True),
            Block([256, 728, 728], 2, True),
            *(Block([728] * 4, 1, True) for _ in range(8)),
            Block([728, 728, 1024], 2, True),
            *(_separable(1024, 1536), nn.ReLU(), _separable(1536, 2048), nn.ReLU()),
            *(nn.Conv2d(2048, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
            nn.Flatten(),
            nn.Linear(64 * self.grid**2, latent_dim),
        )
        self.classifier = nn.Sequential(nn.Linear(latent_dim, 128), nn.ReLU(), nn.Linear(128, 1))
        self.widen = nn.Linear(latent_dim, 256 * self.grid**2)
        widths, layers = (256, 256, 128, 64, 32), []
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            layers += [
                nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.decoder = nn.Sequential(*layers, nn.ConvTranspose2d(32, 3, 4, 2, 1))

    def forward(self, image):
        """Compute logits and reconstruction of [n, 3, size, size] on the scale of -1..1."""
        latent = self.encoder(image)
        grid = self.widen(latent).reshape(-1, 256, self.grid, self.grid)
        reconstruction = nn.functional.interpolate(self.decoder(grid), self.size, mode="bilinear")
        return self.classifier(latent)[:, 0], reconstruction


def time_steps(batch_size: int, size: int, warm_up: int, steps: int, precision: str) -> list[float]:
    """Train on faces in memory; return the seconds of each step after `warm_up` steps."""
    torch.manual_seed(0)
    # Its faster layout on CPUs: channels first took 1.3 times as long in float32.
    memory_format = torch.channels_last
    model = Detector(size).to(memory_format=memory_format).train()
    classifier = {id(weight) for weight in model.classifier.parameters()}
    others = [weight for weight in model.parameters() if id(weight) not in classifier]
    optimizer = torch.optim.SGD(
        [{"params": others, "lr": 0.005}, {"params": model.classifier.parameters(), "lr": 0.0004}],
        momentum=0.9,
    )
    rng = np.random.default_rng(0)
    faces = torch.tensor(rng.uniform(-1, 1, (batch_size, 3, size, size)).astype(np.float32))
    faces = faces.to(memory_format=memory_format)
    labels = (torch.arange(batch_size) % 2).float()
    seconds = []
    for _ in range(warm_up + steps):
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logit, reconstruction = model(faces)
        logit, reconstruction = logit.float(), reconstruction.float()
        loss = 0.8 * nn.functional.binary_cross_entropy_with_logits(logit, labels)
        loss = loss + 0.2 * nn.functional.mse_loss(reconstruction, faces)
        loss.backward()
        optimizer.step()
        float(loss)
        seconds.append(time.perf_counter() - start)
    return seconds[warm_up:]
